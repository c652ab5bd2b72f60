/** A server stops: what it answers, what it cuts off, and that nothing is left of it. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer } from "../support/server.js";
import { until } from "../support/until.js";

const PORT_0 = ["--listen", "127.0.0.1:0", "--workers", "2"];

/** Answers "ms" after so many milliseconds; "spin" never lets go of the event loop. */
const SLOW = `
export default defineService({
  codec: line(),
  async onMessage(text, { log }) {
    log.info("asked " + text);
    if (text === "spin") for (;;);
    await new Promise((resolve) => setTimeout(resolve, Number(text)));
    return "after " + text;
  },
});`;

for (const signal of ["SIGTERM", "SIGINT", "SIGQUIT"] as const) {
  test(`${signal} answers what is in flight, exits 0 and leaves nothing behind`, async (t) => {
    const server = startServer(t, [writeService(makeFolder(t), SLOW), ...PORT_0]);
    const [port = 0] = await server.ready();
    const client = await openClient(t, port);
    client.send("300");
    await server.logged("the request has arrived", ({ msg }) => msg === "asked 300");
    server.signal(signal);
    assert.equal(await client.line(), "after 300");
    assert.equal(await client.closed, undefined);
    assert.deepEqual(await server.exit(), { code: 0, signal: null });
    const last = server.lines.at(-1);
    assert.equal(last?.msg, "stopped");
    assert.deepEqual([last?.closed, last?.forced], [1, 0]);
    await server.gone();
    assert.deepEqual(readdirSync(server.folder), []);
  });
}

test("newcomers are refused at once while the old ones are answered", async (t) => {
  const server = startServer(t, [writeService(makeFolder(t), SLOW), ...PORT_0]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("1000");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked 1000");
  server.signal("SIGTERM");
  // Those that get in before the sockets close are ended in order; one of the next is refused.
  const refused = async (): Promise<string> => {
    for (;;) {
      try {
        await (await openClient(t, port)).closed;
      } catch (error) {
        return (error as NodeJS.ErrnoException).code ?? "";
      }
    }
  };
  assert.equal(await refused(), "ECONNREFUSED");
  assert.equal((await server.status()).state, "stopping");
  assert.equal(await client.line(), "after 1000");
});

test("the deadline cuts off what takes longer", async (t) => {
  const options = { env: { HEADRACE_TIMEOUTS_DRAIN: "200ms" } };
  const server = startServer(t, [writeService(makeFolder(t), SLOW), ...PORT_0], options);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("60000");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked 60000");
  server.signal("SIGTERM");
  assert.equal(await client.closed, "ECONNRESET");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  assert.equal(server.lines.at(-1)?.forced, 1);
});

test("a second signal does not wait, whichever it is", async (t) => {
  const server = startServer(t, [writeService(makeFolder(t), SLOW), ...PORT_0]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("60000");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked 60000");
  server.signal("SIGTERM");
  await server.logged("the first signal", ({ msg }) => msg === "stopping: SIGTERM");
  server.signal("SIGINT");
  assert.equal(await client.closed, "ECONNRESET");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  await server.gone();
});

test("a worker that never returns to its event loop is killed", async (t) => {
  const server = startServer(t, [writeService(makeFolder(t), SLOW), ...PORT_0]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("spin");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked spin").catch(() => {});
  server.signal("SIGTERM");
  await server.logged("the first signal", ({ msg }) => msg === "stopping: SIGTERM");
  server.signal("SIGQUIT");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  await client.closed;
  await server.gone();
});

test("a stop while the services are still being loaded ends everything, exit 0", async (t) => {
  const service = writeService(
    makeFolder(t),
    "process.send({ loading: true }); await new Promise((resolve) => setTimeout(resolve, 1e6)); export default 1;",
  );
  const server = startServer(t, [service, ...PORT_0]);
  await until("the control socket answers", () => server.status().catch(() => undefined));
  server.signal("SIGTERM");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  await server.gone();
  assert.ok(!server.lines.some(({ msg }) => msg === "ready"));
});

test("a stop that comes before anything else is heard", async (t) => {
  const server = startServer(t, PORT_0);
  // SigCgt of proc_pid_status(5). Node catches SIGTERM by itself, and SIGTTOU (bit 21) only for us, last of all.
  const caught = (): boolean => {
    const mask = /SigCgt:\s*([0-9a-f]+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))?.[1] ?? "0";
    return (BigInt(`0x${mask}`) & (1n << 21n)) !== 0n;
  };
  await until("the handlers stand", caught);
  server.signal("SIGTERM");
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  await server.gone();
});

test("nothing of the log is lost at the end", async (t) => {
  const service = writeService(
    makeFolder(t),
    `export default defineService({ codec: line(), onMessage: (x) => x, env(worker) {
       worker.signal.addEventListener("abort", () => {
         for (let i = 0; i < 5000; i++) worker.log.info("last line " + i);
       });
     } });`,
  );
  const server = startServer(t, [service, ...PORT_0]);
  await server.ready();
  server.signal("SIGTERM");
  assert.equal((await server.exit()).code, 0);
  await until(
    "every line has been read",
    () => server.lines.filter(({ msg }) => msg.startsWith("last line")).length === 10_000,
  );
});

test("a log that nobody reads keeps nobody from serving, and no worker from ending", async (t) => {
  const folder = makeFolder(t);
  const service = writeService(
    folder,
    `export default defineService({ codec: line(), onMessage: (x) => x, env(worker) {
       for (let i = 0; i < 20_000; i++) worker.log.info("a line that is long enough to fill any pipe " + i);
     } });`,
  );
  const server = startServer(t, [service, ...PORT_0], { silent: true });
  await until("it serves", async () => {
    const status = await server.status().catch(() => undefined);
    return status?.state === "running";
  });
  const { listeners } = await server.status();
  const client = await openClient(t, Number(listeners[0]?.address.split(":")[1]));
  assert.equal(await client.ask("here"), "here");
  server.signal("SIGTERM");
  await until("the workers have gone", () => server.processes.every((pid) => pid === server.pid));
  server.readLog();
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
  await server.gone();
});

test("workers ignore every signal, and SIGUSR1 kills nobody", async (t) => {
  const server = startServer(t, PORT_0);
  const [port = 0] = await server.ready();
  const { workers } = await server.status();
  const others = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU"] as const;
  for (const signal of others) for (const { pid } of workers) process.kill(pid, signal);
  server.signal("SIGUSR1");
  await server.logged("SIGUSR1", (line) => line.signal === "SIGUSR1" && line.level === 30);
  for (const signal of ["SIGTERM", "SIGINT", "SIGQUIT"] as const) {
    for (const { pid } of workers) process.kill(pid, signal);
  }
  assert.equal(await (await openClient(t, port)).ask("alive"), "alive");
  const now = await server.status();
  assert.deepEqual(
    now.workers.map(({ pid, state }) => [pid, state]),
    workers.map(({ pid }) => [pid, "accepting"]),
  );
});
