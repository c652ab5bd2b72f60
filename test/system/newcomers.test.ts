/** Who is let in: waiting for a place, lists, rates, and no descriptor left. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { LineClient } from "../support/client.js";
import { type GivenConfig, type Rig, startRig, watchTraces } from "../support/under-load.js";
import { until, within } from "../support/until.js";

const ECHO = { name: "main", address: "127.0.0.1:0", service: "echo-line" };

/** A server whose clients are known, and `calm()`: once they are gone, nothing is left of them, and no process grew. */
type Echo = Rig & { readonly clients: LineClient[]; readonly calm: () => Promise<void> };

async function startEcho(t: TestContext, config: GivenConfig): Promise<Echo> {
  const timeouts = { firstByte: "off", idle: "off" };
  const rig = await startRig(t, { config: { listeners: [ECHO], timeouts, ...config }, load: false });
  const noTraces = watchTraces(rig);
  const clients: LineClient[] = [];
  const calm = async (): Promise<void> => {
    for (const { socket } of clients) socket.destroy();
    await noTraces();
  };
  return Object.assign(rig, { clients, calm });
}

/** From one of the loopback addresses. The kernel connects it, whatever the server does. */
function from(
  t: TestContext,
  { port, clients }: Pick<Echo, "port" | "clients">,
  localAddress = "127.0.0.1",
): LineClient {
  const socket = connect({ port, host: "127.0.0.1", localAddress });
  t.after(() => socket.destroy());
  const client = new LineClient(socket);
  clients.push(client);
  return client;
}

/** "served", or the errno. */
async function outcome(client: LineClient): Promise<string> {
  const reply = client.ask("hello").then(
    () => "served",
    () => undefined,
  );
  return (await reply) ?? (await client.closed) ?? "closed";
}

/** CPU time of all processes of the server, ms. */
function cpuMs({ server }: Rig): number {
  return server.processes.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
    return sum + (Number(fields[11]) + Number(fields[12])) * 10;
  }, 0);
}

test("onLimit: wait: newcomers queue, each is served when a place is free, nobody is refused and nobody spins", async (t) => {
  const rig = await startEcho(t, { limits: { connections: 6, onLimit: "wait" } });
  const clients = Array.from({ length: 40 }, () => from(t, rig));
  const served: LineClient[] = [];
  const news = new EventEmitter();
  for (const client of clients) {
    client.send("hello");
    void client.line().then(() => {
      served.push(client);
      news.emit("served");
    });
  }
  await until("as many as there are places", () => served.length === 6);
  const before = cpuMs(rig);
  // Long enough to see that nothing happens.
  await pause(1_000);
  assert.equal(served.length, 6);
  assert.ok(cpuMs(rig) - before < 400, `${cpuMs(rig) - before} ms of CPU in a second of waiting`);
  const waits: number[] = [];
  while (served.length < clients.length) {
    const began = performance.now();
    const next = once(news, "served");
    served[served.length - 6]?.socket.destroy();
    await within("the next one", next);
    waits.push(performance.now() - began);
  }
  const { totals } = await rig.status();
  assert.deepEqual([totals.rejected, totals.accepted, totals.open], [0, 40, 6]);
  // Told, and not found at the next tick: that would take 25 ms.
  const median = waits.toSorted((a, b) => a - b)[waits.length >> 1] ?? 0;
  t.diagnostic(`a place is taken after ${median.toFixed(1)} ms (median)`);
  assert.ok(median < 15);
  // A killed worker's places are free as well.
  const late = from(t, rig);
  late.send("hello");
  const [worker] = (await rig.status()).workers.filter(({ open }) => open > 0);
  process.kill(worker?.pid ?? 0, "SIGKILL");
  assert.equal(await late.line(), "hello");
  await rig.calm();
});

test("a listener's own cap makes its newcomers wait, and nobody else's", async (t) => {
  const other = { ...ECHO, name: "other", limits: { connections: 1, onLimit: "wait" } };
  const rig = await startEcho(t, { listeners: [ECHO, other] });
  const [, port = 0] = await rig.server.ready();
  const inside = from(t, { ...rig, port });
  assert.equal(await outcome(inside), "served");
  const outside = from(t, { ...rig, port });
  outside.send("hello");
  for (let i = 0; i < 5; i++) assert.equal(await outcome(from(t, rig)), "served");
  inside.socket.end();
  assert.equal(await outside.line(), "hello");
  assert.equal((await rig.status()).totals.rejected, 0);
  await rig.calm();
});

test("onLimit: close: FIN instead of RST, counted alike", async (t) => {
  const rig = await startEcho(t, { limits: { connections: 1, onLimit: "close" } });
  assert.equal(await outcome(from(t, rig)), "served");
  assert.equal(await from(t, rig).closed.then((errno) => errno ?? "in order"), "in order");
  assert.equal((await rig.status()).rejections["max-connections"], 1);
  await rig.calm();
});

test("allow and deny: at the top, of a listener, changed while it runs; who is there stays", async (t) => {
  const inner = { ...ECHO, name: "inner", admission: { allow: ["127.0.0.0/30"] } };
  const config = { listeners: [ECHO, inner], admission: { deny: ["127.0.0.2"] } };
  const rig = await startEcho(t, config);
  const [, innerPort = 0] = await rig.server.ready();
  const at = (port: number, host: string): Promise<string> => outcome(from(t, { ...rig, port }, host));
  assert.equal(await at(rig.port, "127.0.0.1"), "served");
  assert.equal(await at(rig.port, "127.0.0.2"), "ECONNRESET");
  assert.equal(await at(rig.port, "127.0.0.9"), "served");
  assert.equal(await at(innerPort, "127.0.0.3"), "served");
  assert.equal(await at(innerPort, "127.0.0.2"), "ECONNRESET", "the lists at the top hold here too");
  assert.equal(await at(innerPort, "127.0.0.9"), "ECONNRESET");
  const stays = from(t, rig, "127.0.0.5");
  assert.equal(await stays.ask("before"), "before");
  rig.configure({ ...config, timeouts: { firstByte: "off", idle: "off" }, admission: { deny: ["127.0.0.4/30"] } });
  await rig.command("reload", "--wait");
  assert.equal(await at(rig.port, "127.0.0.5"), "ECONNRESET");
  assert.equal(await at(rig.port, "127.0.0.2"), "served");
  assert.equal(await stays.ask("after"), "after");
  const status = await rig.status();
  assert.equal(status.rejections.denied, 4);
  assert.equal(status.lastChange?.message.includes("new"), false);
  const { rejected } = await rig.server.logged("the rejections", ({ msg }) => msg.startsWith("connections rejected"));
  assert.ok((rejected as { denied: number }).denied >= 1);
  assert.match((await rig.command("status")).stdout, /^rejected: denied 4$/m);
  await rig.calm();
});

test("connectRate: a burst at once, then as fast as it says, over both workers; other addresses are not held", async (t) => {
  const rig = await startEcho(t, { limits: { connectRate: 20, connectBurst: 10 } });
  const began = performance.now();
  let served = 0;
  while (performance.now() - began < 1_500) {
    const outcomes = await Promise.all(Array.from({ length: 4 }, () => outcome(from(t, rig))));
    served += outcomes.filter((each) => each === "served").length;
    const allowed = 10 + ((performance.now() - began) / 1_000) * 20 + 1;
    assert.ok(served <= allowed, `${served} of ${allowed}`);
  }
  assert.ok(served >= 30, `${served}`);
  assert.equal(await outcome(from(t, rig, "127.0.0.7")), "served");
  assert.ok((await rig.status()).rejections.rate > 0);
  await rig.calm();
});

test("a limit that a reload switches on counts those who are there already", async (t) => {
  const rig = await startEcho(t, { limits: { connections: 50 } });
  const clients = Array.from({ length: 6 }, () => from(t, rig));
  for (const client of clients) assert.equal(await client.ask("x"), "x");
  rig.configure({
    listeners: [ECHO],
    timeouts: { firstByte: "off", idle: "off" },
    limits: { connections: 50, connectionsPerAddress: 7 },
  });
  await rig.command("reload", "--wait");
  assert.equal(await outcome(from(t, rig)), "served");
  assert.equal(await outcome(from(t, rig)), "ECONNRESET");
  // New workers count those that move to them, and the old ones give them back.
  await rig.command("reload", "--replace", "--wait");
  assert.equal(await outcome(from(t, rig)), "ECONNRESET");
  for (const client of clients.splice(0, 2)) client.socket.destroy();
  await until("a free place", async () => (await outcome(from(t, rig))) === "served");
  assert.equal(await clients[0]?.ask("still"), "still");
  await rig.calm();
});

test("onLimit: wait: places go by turns between workers, whoever frees them", async (t) => {
  const rig = await startEcho(t, { limits: { connections: 1, onLimit: "wait" } });
  // On one CPU whoever frees a place runs on, and is always the first to see it.
  for (const pid of await rig.workerPids()) execFileSync("taskset", ["-a", "-c", "-p", "0", String(pid)]);
  const waiting = new Map<LineClient, number>();
  const waits: number[] = [];
  let done = false;
  const comeAndGo = async (): Promise<void> => {
    while (!done) {
      const client = from(t, rig);
      waiting.set(client, performance.now());
      client.send("hello");
      await client.line().catch(() => {});
      waits.push(performance.now() - (waiting.get(client) ?? 0));
      waiting.delete(client);
      client.socket.destroy();
    }
  };
  const clients = Array.from({ length: 20 }, comeAndGo);
  await until("1,000 were served", () => waits.length >= 1_000);
  const longest = Math.max(...waits, ...[...waiting.values()].map((since) => performance.now() - since));
  const shares = (await rig.status()).workers.map(({ accepted }) => accepted);
  done = true;
  await within("the last ones", Promise.all(clients));
  t.diagnostic(`accepted by worker: ${shares.join(", ")}; longest wait ${longest.toFixed(0)} ms`);
  const served = shares.reduce((sum, share) => sum + share, 0);
  for (const share of shares) assert.ok(share > served / 4, `accepted: ${shares}`);
  assert.ok(longest < 2_000, `${longest} ms`);
  assert.equal((await rig.status()).totals.rejected, 0);
  await rig.calm();
});

test("onLimit: wait: who waits in the queue of a worker that is removed is neither reset nor left waiting", async (t) => {
  const rig = await startEcho(t, { workers: 3, limits: { connections: 2, onLimit: "wait" } });
  const inside = [from(t, rig), from(t, rig)];
  for (const client of inside) assert.equal(await client.ask("in"), "in");
  const waiting = Array.from({ length: 30 }, () => from(t, rig));
  await Promise.all(waiting.map(({ socket }) => once(socket, "connect")));
  const served = waiting.map(async (client) => {
    const reply = await outcome(client);
    client.socket.destroy();
    return reply;
  });
  const scaled = rig.command("scale", "1", "--wait");
  await pause(1_500);
  // Only now is there a place: the sockets that are to go have been waiting for one.
  for (const client of inside) client.socket.destroy();
  assert.deepEqual(
    await within("everybody", Promise.all(served)),
    waiting.map(() => "served"),
  );
  await scaled;
  assert.deepEqual((await rig.status()).workers.length, 1);
});

test("no place comes free before the scale's time is over: the worker goes, its queue stays and is served", async (t) => {
  const timeouts = { firstByte: "off", idle: "off", drain: "1s" };
  const rig = await startEcho(t, { workers: 3, timeouts, limits: { connections: 2, onLimit: "wait" } });
  const inside = [from(t, rig), from(t, rig)];
  for (const client of inside) assert.equal(await client.ask("in"), "in");
  const waiting = Array.from({ length: 30 }, () => from(t, rig));
  await Promise.all(waiting.map(({ socket }) => once(socket, "connect")));
  const served = waiting.map(async (client) => {
    const reply = await outcome(client);
    client.socket.destroy();
    return reply;
  });
  await rig.command("scale", "1", "--wait");
  assert.equal((await rig.status()).workers.length, 1);
  for (const client of inside) client.socket.destroy();
  assert.deepEqual(
    await within("everybody", Promise.all(served)),
    waiting.map(() => "served"),
  );
  // With an empty queue the slots can go, or come back to life.
  await rig.command("scale", "3", "--wait");
  await rig.command("scale", "1", "--wait");
  for (let i = 0; i < 20; i++) {
    const client = from(t, rig);
    assert.equal(await outcome(client), "served");
    client.socket.destroy();
  }
});

test("a reload from wait to reset holds for those that wait, too", async (t) => {
  const rig = await startEcho(t, { workers: 1, limits: { connections: 1, onLimit: "wait" } });
  assert.equal(await outcome(from(t, rig)), "served");
  const waits = from(t, rig);
  waits.send("hello");
  await pause(200);
  rig.configure({
    workers: 1,
    listeners: [ECHO],
    timeouts: { firstByte: "off", idle: "off" },
    limits: { connections: 1, onLimit: "reset" },
  });
  await rig.command("reload", "--wait");
  assert.equal(await within("an answer", waits.closed), "ECONNRESET");
  assert.equal(await outcome(from(t, rig)), "ECONNRESET");
  assert.equal((await rig.status()).rejections["max-connections"], 2);
  await rig.calm();
});

test("a listener that counts its clients apart from now on counts those who are there", async (t) => {
  const base = { workers: 2, timeouts: { firstByte: "off", idle: "off" }, limits: { connectionsPerAddress: 10 } };
  const rig = await startEcho(t, base);
  const clients = Array.from({ length: 10 }, () => from(t, rig));
  for (const client of clients) assert.equal(await client.ask("x"), "x");
  assert.equal(await outcome(from(t, rig)), "ECONNRESET");
  for (const [connectionsPerAddress, own] of [
    [5, true],
    [10, false],
  ] as const) {
    rig.configure({ ...base, listeners: [own ? { ...ECHO, limits: { connectionsPerAddress } } : ECHO] });
    await rig.command("reload", "--wait");
    for (let i = 0; i < 6; i++) assert.equal(await outcome(from(t, rig)), "ECONNRESET", `at ${connectionsPerAddress}`);
  }
  for (const client of clients.splice(0, 3)) client.socket.destroy();
  await until("a place", async () => (await outcome(from(t, rig))) === "served");
  await rig.calm();
});

test("onLimit: close is about places: whoever is not wanted gets RST", async (t) => {
  const limits = { connections: 5, connectionsPerAddress: 1, onLimit: "close" };
  const rig = await startEcho(t, { limits, admission: { deny: ["127.0.0.2"] } });
  const ending = (host: string): Promise<string> => from(t, rig, host).closed.then((errno) => errno ?? "in order");
  assert.equal(await outcome(from(t, rig)), "served");
  assert.equal(await ending("127.0.0.1"), "ECONNRESET", "per-address");
  assert.equal(await ending("127.0.0.2"), "ECONNRESET", "denied");
  for (let i = 3; i < 7; i++) assert.equal(await outcome(from(t, rig, `127.0.0.${i}`)), "served");
  assert.equal(await ending("127.0.0.9"), "in order");
  await rig.calm();
});

/** As `ulimit -n 64` would, with which Node itself does not get as far as serving. */
function limitDescriptors({ server }: Rig): void {
  for (const pid of server.processes) execFileSync("prlimit", [`--pid=${pid}`, "--nofile=64:64"]);
}

test("64 descriptors: newcomers are told, who is there is served, and it recovers", async (t) => {
  const rig = await startEcho(t, { workers: 1 });
  limitDescriptors(rig);
  const clients: LineClient[] = [];
  for (let i = 0; i < 100; i++) clients.push(from(t, rig));
  await Promise.all(
    clients.map(({ socket, closed }) => Promise.race([once(socket, "connect").catch(() => {}), closed])),
  );
  const first = clients[0] as LineClient;
  assert.equal(await first.ask("first"), "first");
  await until("one is turned away", async () => (await rig.status()).rejections.descriptors > 0);
  const before = cpuMs(rig);
  const began = performance.now();
  let asked = 0;
  while (performance.now() - began < 1_000) {
    assert.equal(await first.ask("still"), "still");
    asked += 1;
    await pause(20);
  }
  assert.ok(asked > 20 && cpuMs(rig) - before < 500, `${cpuMs(rig) - before} ms of CPU`);
  for (const client of clients.slice(1)) client.socket.destroy();
  await until("a newcomer is served", async () => (await outcome(from(t, rig))) === "served");
  assert.equal((await rig.status()).workers[0]?.restarts, 0);
  await rig.calm();
});
