/**
 * What the service manager hears, message by message, from real servers: a notify socket records it. Pings of the
 * watchdog, extensions of timeouts and a status alone may come at any time and are looked at where they matter;
 * everything else must be there, in this order, from the right process.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { parseSocketName } from "#src/primary/socket-names.js";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { type Notification, type NotifySocket, openNotifySocket } from "../support/notify-socket.js";
import { listeningInodes } from "../support/processes.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const PORT_0 = ["--listen", "127.0.0.1:0", "--workers", "2"];
const QUICK = { HEADRACE_TIMEOUTS_PROVE: "300ms", HEADRACE_TIMEOUTS_DRAIN: "5s" };

interface Notifying {
  readonly manager: NotifySocket;
  readonly server: TestServer;
}

async function start(
  t: TestContext,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  cwd?: string,
): Promise<Notifying> {
  const manager = await openNotifySocket(t);
  const options = { env: { NOTIFY_SOCKET: manager.path, ...QUICK, ...env }, ...(cwd === undefined ? {} : { cwd }) };
  return { manager, server: startServer(t, args, options) };
}

/** The server in a folder with a file that the test may change. */
async function startWithFile(
  t: TestContext,
  content: string,
  env: NodeJS.ProcessEnv = {},
): Promise<Notifying & { write: (content: string) => void }> {
  const folder = makeFolder(t);
  const path = join(folder, "headrace.yaml");
  const write = (text: string): void => writeFileSync(path, text);
  write(content);
  return { ...(await start(t, ["--config", path], env, folder)), write };
}

const listener = (name: string, service = "echo-line"): string =>
  `  - { name: ${name}, address: "127.0.0.1:0", service: ${service} }\n`;
const file = (...listeners: string[]): string => `workers: 2\nlisteners:\n${listeners.join("")}`;

const isPing = ({ lines }: Notification): boolean => lines.join() === "WATCHDOG=1";
const isExtension = ({ lines }: Notification): boolean =>
  lines.length === 1 && /^EXTEND_TIMEOUT_USEC=[1-9]\d*$/.test(lines[0] ?? "");
const isStatus = ({ lines }: Notification): boolean => lines.length === 1 && (lines[0] ?? "").startsWith("STATUS=");

/** What may come at any time left out. */
function told(messages: readonly Notification[]): Notification[] {
  return messages.filter((message) => !isPing(message) && !isExtension(message) && !isStatus(message));
}

type Expected = readonly (string | RegExp)[];

const RELOADING: Expected = ["RELOADING=1", /^MONOTONIC_USEC=\d+$/, /^STATUS=./];
const READY: Expected = ["READY=1", /^STATUS=./];
const STOPPING: Expected = ["STOPPING=1", /^STATUS=./];
const STORE: Expected = ["FDSTORE=1", /^FDNAME=slot-/];
const REMOVE: Expected = ["FDSTOREREMOVE=1", /^FDNAME=slot-/];
const BARRIER: Expected = ["BARRIER=1"];

function assertLines({ lines }: Notification, expected: Expected, all: string): void {
  assert.equal(lines.length, expected.length, `${JSON.stringify(lines)} in ${all}`);
  for (const [index, line] of expected.entries()) {
    if (typeof line === "string") assert.equal(lines[index], line, all);
    else assert.match(lines[index] ?? "", line, all);
  }
}

/** Each message, line by line, and nothing else; all from `pid`. */
function assertTold(messages: readonly Notification[], pid: number, expected: readonly Expected[]): void {
  const heard = told(messages);
  const all = JSON.stringify(heard.map(({ lines }) => lines));
  assert.equal(heard.length, expected.length, all);
  for (const [index, message] of heard.entries()) {
    assertLines(message, expected[index] ?? [], all);
    assert.equal(message.pid, pid, all);
  }
}

/** Name and listener of a message about the descriptor store. */
function storedSocket({ lines }: Notification): { slot: number; key: string } {
  const name = lines.find((line) => line.startsWith("FDNAME="))?.slice("FDNAME=".length) ?? "";
  const place = parseSocketName(name);
  assert.ok(place, name);
  return place;
}

const inodeOf = ({ fds }: Notification): string => /^socket:\[(\d+)\]$/.exec(fds[0] ?? "")?.[1] ?? "none";

/** What has come since message `from`, after a command that has ended: a request that is answered follows all it sent. */
async function since({ manager, server }: Notifying, from: number): Promise<Notification[]> {
  await server.status();
  return (await manager.caughtUp()).slice(from);
}

test("start: every slot's socket is stored under its name, then READY, once all accept", async (t) => {
  const { manager, server } = await startWithFile(t, file(listener("one"), listener("two")));
  const messages = await manager.said(/^READY=1$/);
  const ports = await server.ready();
  assertTold(messages, server.pid, [STORE, STORE, STORE, STORE, READY]);
  const stored = told(messages).slice(0, 4);
  assert.deepEqual(
    stored
      .map((message) => storedSocket(message))
      .map(({ slot, key }) => `${slot} ${key}`)
      .sort(),
    ["one", "two"].flatMap((name) => [0, 1].map((slot) => `${slot} tcp|127.0.0.1|0|false|${name}`)).sort(),
  );
  assert.deepEqual(stored.map(inodeOf).sort(), ports.flatMap(listeningInodes).sort());
  for (const { fds } of stored) assert.equal(fds.length, 1);
  assert.equal((await server.command("stop", "--wait")).code, 0);
});

test("a UDP socket is kept whatever poll(2) says of it: an ICMP error must not have it thrown out", async (t) => {
  const { manager, server } = await start(t, ["echo-udp", "--listen", "udp://127.0.0.1:0", "--workers", "2"]);
  const messages = await manager.said(/^READY=1$/);
  const kept: Expected = [...STORE, "FDPOLL=0"];
  assertTold(messages, server.pid, [kept, kept, READY]);
  assert.deepEqual(
    told(messages)
      .slice(0, 2)
      .map((message) => storedSocket(message).key),
    ["udp|127.0.0.1|0|false|echo-udp", "udp|127.0.0.1|0|false|echo-udp"],
  );
  assert.equal((await server.command("stop", "--wait")).code, 0);
});

test("READY waits for the last worker, and asks for more time meanwhile", async (t) => {
  const gate = join(makeFolder(t), "gate");
  const service = writeService(
    makeFolder(t),
    `import { existsSync } from "node:fs";
     export default defineService({ codec: line(), onMessage: (text) => text, async env(worker) {
       worker.log.info("at the gate");
       while (!existsSync(${JSON.stringify(gate)})) await new Promise((resolve) => setTimeout(resolve, 20));
     } });`,
  );
  const { manager, server } = await start(t, [service, ...PORT_0]);
  await server.logged("a worker is at the gate", ({ msg }) => msg === "at the gate");
  await until("it asks for more time", () => manager.messages.some(isExtension));
  assert.ok(!manager.messages.some(({ lines }) => lines.includes("READY=1")));
  writeFileSync(gate, "");
  await manager.said(/^READY=1$/);
  const [port = 0] = await server.ready();
  assert.equal(await (await openClient(t, port)).ask("hello"), "hello");
});

test("a start that fails is never READY", async (t) => {
  const service = writeService(makeFolder(t), 'throw new Error("bad release");');
  const { manager, server } = await start(t, [service, ...PORT_0]);
  assert.notEqual((await server.exit()).code, 0);
  assert.ok(!(await manager.caughtUp()).some(({ lines }) => lines.includes("READY=1")));
});

test("reload: RELOADING with the time, then READY", async (t) => {
  const notifying = await startWithFile(t, file(listener("one")));
  const { manager, server, write } = notifying;
  await manager.said(/^READY=1$/);
  const from = manager.messages.length;
  const before = process.hrtime.bigint() / 1_000n;
  write(`${file(listener("one"))}limits: { connections: 500 }\n`);
  assert.equal((await server.command("reload", "--wait")).code, 0);
  const after = process.hrtime.bigint() / 1_000n;
  const messages = await since(notifying, from);
  assertTold(messages, server.pid, [RELOADING, READY]);
  const time = BigInt(/\d+$/.exec(told(messages)[0]?.lines[1] ?? "")?.[0] ?? 0);
  assert.ok(time >= before && time <= after, `${time} is not between ${before} and ${after}`);
});

test("SIGHUP says the same, and a reload that replaces workers asks for more time", async (t) => {
  const notifying = await startWithFile(t, file(listener("one")));
  const { manager, server } = notifying;
  await manager.said(/^READY=1$/);
  let from = manager.messages.length;
  server.signal("SIGHUP");
  await manager.said(/^READY=1$/, from);
  assertTold(await since(notifying, from), server.pid, [RELOADING, READY]);
  from = manager.messages.length;
  assert.equal((await server.command("reload", "--replace", "--wait")).code, 0);
  const messages = await since(notifying, from);
  assertTold(messages, server.pid, [RELOADING, READY]);
  assert.ok(messages.some(isExtension));
});

test("a reload that fails ends with READY too, and says why", async (t) => {
  const notifying = await startWithFile(t, file(listener("one")));
  const { manager, server, write } = notifying;
  await manager.said(/^READY=1$/);
  const from = manager.messages.length;
  write("workers: none\n");
  assert.equal((await server.command("reload", "--wait")).code, 1);
  const messages = await since(notifying, from);
  assertTold(messages, server.pid, [RELOADING, ["READY=1", /^STATUS=reload failed: .*workers/]]);
});

test("addresses that come and go are stored and removed between RELOADING and READY", async (t) => {
  const notifying = await startWithFile(t, file(listener("one")));
  const { manager, server, write } = notifying;
  await manager.said(/^READY=1$/);
  let from = manager.messages.length;
  write(file(listener("one"), listener("two")));
  assert.equal((await server.command("reload", "--wait")).code, 0);
  const added = await since(notifying, from);
  assertTold(added, server.pid, [RELOADING, STORE, STORE, READY]);
  for (const message of told(added).slice(1, 3)) assert.match(storedSocket(message).key, /\|two$/);
  from = manager.messages.length;
  write(file(listener("two")));
  assert.equal((await server.command("reload", "--wait")).code, 0);
  const removed = await since(notifying, from);
  assertTold(removed, server.pid, [RELOADING, REMOVE, REMOVE, READY]);
  assert.deepEqual(
    told(removed)
      .slice(1, 3)
      .map(storedSocket)
      .map(({ slot, key }) => `${slot} ${key}`)
      .sort(),
    ["0 tcp|127.0.0.1|0|false|one", "1 tcp|127.0.0.1|0|false|one"],
  );
});

test("slots that come and go are stored and removed; the unit is not reloading meanwhile", async (t) => {
  const notifying = await start(t, PORT_0);
  const { manager, server } = notifying;
  await manager.said(/^READY=1$/);
  let from = manager.messages.length;
  assert.equal((await server.command("scale", "3", "--wait")).code, 0);
  const grown = await since(notifying, from);
  assertTold(grown, server.pid, [STORE]);
  assert.equal(storedSocket(told(grown)[0] as Notification).slot, 2);
  from = manager.messages.length;
  assert.equal((await server.command("scale", "1", "--wait")).code, 0);
  const shrunk = await since(notifying, from);
  assertTold(shrunk, server.pid, [REMOVE, REMOVE]);
  assert.deepEqual(
    told(shrunk)
      .map((message) => storedSocket(message).slot)
      .sort(),
    [1, 2],
  );
});

test("upgrade: the old one hands on in one message, passes a barrier, and says no more", async (t) => {
  const notifying = await start(t, PORT_0, { WATCHDOG_USEC: "600000" });
  const { manager, server } = notifying;
  await manager.said(/^READY=1$/);
  const from = manager.messages.length;
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  const { pid, generation } = await server.status();
  assert.notEqual(pid, server.pid);
  assert.equal(generation, 2);
  await until("the new one feeds the watchdog", () =>
    manager.messages.some((each) => each.pid === pid && isPing(each)),
  );
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  const messages = manager.messages.slice(from);
  const barrier = messages.findIndex(({ lines }) => lines.includes("BARRIER=1"));
  const handover: Expected = [`MAINPID=${pid}`, "READY=1", "WATCHDOG=1", /^STATUS=.*\b2\b/];
  assertTold(messages.slice(0, barrier + 1), server.pid, [RELOADING, handover, BARRIER]);
  assert.match(told(messages)[0]?.lines[2] ?? "", /^STATUS=upgrade: checking/);
  assert.equal(messages[barrier]?.fds.length, 1);
  // Everything before the new one was the main process would have been thrown away.
  for (const [index, message] of messages.entries()) {
    assert.equal(message.pid, index <= barrier ? server.pid : pid, JSON.stringify(message));
  }
  for (const message of told(messages.slice(barrier + 1))) {
    assert.ok(["FDSTORE=1", "READY=1"].includes(message.lines[0] ?? ""), JSON.stringify(message));
  }
  const served = manager.messages.length;
  assert.equal((await server.command("stop", "--wait")).code, 0);
  assertTold((await manager.caughtUp()).slice(served), pid, [STOPPING]);
});

test("upgrade by SIGUSR2, and another after it", async (t) => {
  const { manager, server } = await start(t, PORT_0);
  await manager.said(/^READY=1$/);
  let pid = server.pid;
  for (const generation of [2, 3]) {
    const from = manager.messages.length;
    process.kill(pid, "SIGUSR2");
    const before = pid;
    await manager.said(/^BARRIER=1$/, from);
    await until(`generation ${generation} answers`, async () => {
      const status = await server.status().catch(() => undefined);
      return status?.generation === generation && status.state === "running";
    });
    pid = (await server.status()).pid;
    const heard = told(manager.messages.slice(from)).filter((message) => message.pid === before);
    assertTold(heard, before, [RELOADING, [`MAINPID=${pid}`, "READY=1", "WATCHDOG=1", /^STATUS=./], BARRIER]);
    await until("the old generation has gone", async () => (await server.status()).draining.length === 0);
  }
  assert.equal((await server.command("stop", "--wait")).code, 0);
});

test("an upgrade that fails ends with READY of the old one; the next one works", async (t) => {
  const folder = makeFolder(t);
  const good = "export default defineService({ codec: line(), onMessage: (text) => text });";
  const service = writeService(folder, good);
  const notifying = await start(t, [service, ...PORT_0]);
  const { manager, server } = notifying;
  await manager.said(/^READY=1$/);
  for (const bad of ['throw new Error("bad release");', "process.exit(3);"]) {
    writeService(folder, bad);
    const from = manager.messages.length;
    assert.equal((await server.command("upgrade", "--wait")).code, 1);
    const messages = await since(notifying, from);
    assertTold(messages, server.pid, [RELOADING, ["READY=1", /^STATUS=upgrade failed: .*1$/]]);
  }
  writeService(folder, good);
  const from = manager.messages.length;
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  const { pid } = await server.status();
  const heard = told(manager.messages.slice(from)).filter((message) => message.pid === server.pid);
  assertTold(heard, server.pid, [RELOADING, [`MAINPID=${pid}`, "READY=1", "WATCHDOG=1", /^STATUS=./], BARRIER]);
  assert.equal((await server.command("stop", "--wait")).code, 0);
});

test("a release that dies within its proving time: READY of the old one, and nothing of the new one", async (t) => {
  const folder = makeFolder(t);
  const service = writeService(folder, "export default defineService({ codec: line(), onMessage: (text) => text });");
  const notifying = await start(t, [service, ...PORT_0], { HEADRACE_TIMEOUTS_PROVE: "5s" });
  const { manager, server } = notifying;
  await manager.said(/^READY=1$/);
  writeService(
    folder,
    `setTimeout(() => process.exit(3), 1_000);
     export default defineService({ codec: line(), onMessage: (text) => text });`,
  );
  const from = manager.messages.length;
  assert.equal((await server.command("upgrade", "--wait")).code, 1);
  const messages = await since(notifying, from);
  assertTold(messages, server.pid, [RELOADING, ["READY=1", /^STATUS=upgrade failed: ./]]);
  assert.ok(messages.every((message) => message.pid === server.pid));
});

test("stop: STOPPING, once, and time for the drain", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), async onMessage(text, { log }) {
       log.info("asked");
       await new Promise((resolve) => setTimeout(resolve, 500));
       return text;
     } });`,
  );
  const { manager, server } = await start(t, [service, ...PORT_0], { HEADRACE_TIMEOUTS_DRAIN: "120s" });
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("last");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked");
  const from = (await manager.said(/^READY=1$/)).length;
  server.signal("SIGTERM");
  const messages = await manager.said(/^STOPPING=1$/, from);
  assertTold(messages.slice(from), server.pid, [STOPPING]);
  assert.equal(await client.line(), "last");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  const later = (await manager.caughtUp()).slice(from);
  assert.equal(told(later).length, 1);
  // The unit's own TimeoutStopSec may be shorter than what the configuration says of the drain.
  const extended = later.filter(isExtension).map(({ lines }) => Number(lines[0]?.split("=")[1]) / 1e6);
  assert.ok(Math.max(...extended) >= 120, `asked for ${extended} s, drains for 120 s`);
});

test("a stop during a start, and a second signal: STOPPING once, READY never", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), onMessage: (text) => text, env: async () => {
       process.stderr.write("loading\\n");
       await new Promise((resolve) => setTimeout(resolve, 1e6));
     } });`,
  );
  const { manager, server } = await start(t, [service, ...PORT_0]);
  await until("the control socket answers", () => server.status().catch(() => undefined));
  server.signal("SIGTERM");
  server.signal("SIGTERM");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  assertTold(await manager.caughtUp(), server.pid, [STOPPING]);
});

test("the watchdog is fed at half its period, from READY on", async (t) => {
  const { manager, server } = await start(t, PORT_0, { WATCHDOG_USEC: "1000000" });
  await manager.said(/^READY=1$/);
  const from = manager.messages.length;
  const begun = performance.now();
  await until("five pings", () => manager.messages.slice(from).filter(isPing).length >= 5);
  const periodMs = (performance.now() - begun) / 5;
  assert.ok(periodMs > 300 && periodMs < 700, `a ping every ${periodMs.toFixed(0)} ms`);
  assert.ok(manager.messages.filter(isPing).every(({ pid }) => pid === server.pid));
});

test("a watchdog for another process is left to that one", async (t) => {
  const env = { WATCHDOG_USEC: "200000", WATCHDOG_PID: "1" };
  const { manager, server } = await start(t, PORT_0, env);
  await manager.said(/^READY=1$/);
  const [port = 0] = await server.ready();
  assert.equal(await (await openClient(t, port)).ask("hello"), "hello");
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.ok(!manager.messages.some(isPing));
});

test("the watchdog is fed while one worker still turns, not when all stand still, and again afterwards", async (t) => {
  const env = { WATCHDOG_USEC: "1000000", HEADRACE_TIMEOUTS_HANG: "off" };
  const { manager, server } = await start(t, PORT_0, env);
  await manager.said(/^READY=1$/);
  const { workers } = await server.status();
  const pings = (): number => manager.messages.filter(isPing).length;
  const pingsIn = async (ms: number): Promise<number> => {
    const before = pings();
    await new Promise((resolve) => setTimeout(resolve, ms));
    return pings() - before;
  };
  process.kill(workers[0]?.pid ?? 0, "SIGSTOP");
  assert.ok((await pingsIn(7_000)) >= 10, "one stuck worker has stopped the watchdog's food");
  process.kill(workers[1]?.pid ?? 0, "SIGSTOP");
  await until("no ping for two seconds", async () => (await pingsIn(2_000)) === 0);
  for (const { pid } of workers) process.kill(pid, "SIGCONT");
  await until("it is fed again", async () => (await pingsIn(1_200)) > 0);
});

test("what a worker starts hears nothing of the service manager", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), onMessage: (text) => process.env[text] ?? "unset" });`,
  );
  const env = { WATCHDOG_USEC: "1000000", LISTEN_FDS: "1", LISTEN_PID: "1", LISTEN_FDNAMES: "x" };
  const { server } = await start(t, [service, ...PORT_0], env);
  const [port = 0] = await server.ready();
  for (const generation of [1, 2]) {
    const client = await openClient(t, port);
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]) {
      assert.equal(await client.ask(name), "unset", `${name} in generation ${generation}`);
    }
    if (generation === 1) assert.equal((await server.command("upgrade", "--wait")).code, 0);
  }
  assert.equal((await server.command("stop", "--wait")).code, 0);
});

test("a service manager that has gone, or does not read, keeps nobody from serving", async (t) => {
  const { manager, server } = await start(t, PORT_0);
  const [port = 0] = await server.ready();
  await manager.close();
  assert.equal((await server.command("reload", "--replace", "--wait")).code, 0);
  assert.equal(await (await openClient(t, port)).ask("hello"), "hello");
  const warned = await server.logged("a warning", ({ level, msg }) => level >= 40 && /service manager/.test(msg));
  assert.match(warned.msg, /ECONNREFUSED|ENOENT/);
  server.signal("SIGTERM");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
});

test("NOTIFY_SOCKET that is no address is said once, and the server serves", async (t) => {
  const server = startServer(t, PORT_0, { env: { NOTIFY_SOCKET: "nonsense" } });
  const [port = 0] = await server.ready();
  await server.logged("a warning", ({ level, msg }) => level === 40 && /NOTIFY_SOCKET=nonsense/.test(msg));
  assert.equal(await (await openClient(t, port)).ask("hello"), "hello");
});
