/** rpc on a server of real processes: deadlines, cancels, overload, goodbyes and reloads, as clients see them. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { makeFolder } from "../support/folder.js";
import { openRpcClient, type RpcClient } from "../support/rpc-client.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const INDEX = import.meta.resolve("#src/index.js");

const TASKS = `
import { existsSync } from "node:fs";
export function hold(path) {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(path)) Atomics.wait(cell, 0, 0, 2);
}
export function spin(ms) { const until = performance.now() + ms; while (performance.now() < until); return ms; }
`;

const SERVICE = `
import { definePool, defineRpcService, RpcError } from ${JSON.stringify(INDEX)};
const pool = definePool({ name: "work", module: new URL("./tasks.mjs", import.meta.url), threads: 1, maxQueueDelay: "10s" });
export default defineRpcService({
  pools: [pool],
  onRequest(payload, context) {
    const [verb, number] = payload.toString().split(" ");
    if (verb === "throw") throw new Error("secret of " + import.meta.url);
    if (verb === "refuse") throw new RpcError("not today");
    if (verb === "pid") return String(process.pid);
    if (verb === "left") return String(Math.round(context.remainingMs()));
    if (verb === "trace") return context.traceparent;
    if (verb === "wait") return new Promise((resolve) => setTimeout(resolve, Number(number), payload));
    if (verb === "hold") return context.run(pool, "hold", "release").then(() => payload);
    if (verb === "spin") return context.run(pool, "spin", Number(number)).then(() => payload);
    return payload;
  },
});
`;

/** `release` lets the task "hold" end. */
async function start(t: TestContext, options = ""): Promise<{ server: TestServer; port: number; release(): void }> {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "service.mjs"), SERVICE);
  writeFileSync(join(folder, "tasks.mjs"), TASKS);
  const yaml = `workers: 1\nlisteners: [{ address: "127.0.0.1:0", service: ./service.mjs }]\n${options}`;
  writeFileSync(join(folder, "headrace.yaml"), yaml);
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  return { server, port, release: () => writeFileSync(join(folder, "release"), "") };
}

const waiting = async (server: TestServer): Promise<number> => (await server.status()).workers[0]?.waiting ?? 0;

test("a deadline passes: the client hears so in time, and its task is taken out of the queue", async (t) => {
  const { server, port, release } = await start(t, "shed: { queueDelay: off, loopDelay: off }\n");
  const [holder, client] = [await openRpcClient(t, port), await openRpcClient(t, port)];
  const holding = holder.send("hold");
  const ids = Array.from({ length: 10 }, () => client.send("spin 900", { deadlineMs: 1_500 }));
  await until("they wait", async () => (await waiting(server)) === 10);
  const askedAt = performance.now();
  assert.equal(await client.ask("spin 1", { deadlineMs: 150 }), "deadline");
  const tookMs = performance.now() - askedAt;
  assert.ok(tookMs > 140 && tookMs < 300, `${tookMs} ms`);
  for (const id of ids) assert.equal(await client.reply(id), "deadline");
  release();
  assert.equal(await holder.reply(holding), "ok hold");
  assert.equal(await client.ask("spin 1", { deadlineMs: 5_000 }), "ok spin 1", "none of the ten is done any more");
  const { totals } = await server.status();
  assert.deepEqual([totals.late, totals.shed], [11, 0]);
  const left = Number((await client.ask("left", { deadlineMs: 400 })).slice(3));
  assert.ok(left > 300 && left <= 400, `${left} ms left`);
});

test("a cancel takes the task back; the client is told nothing, and status counts it", async (t) => {
  const { server, port, release } = await start(t, "shed: { queueDelay: off, loopDelay: off }\n");
  const client = await openRpcClient(t, port);
  const [first, second, third] = [client.send("hold"), client.send("spin 60000"), client.send("spin 1")];
  await until("they wait", async () => (await waiting(server)) === 2);
  client.cancel(second);
  release();
  assert.equal(await client.reply(first), "ok hold");
  assert.equal(await client.reply(third), "ok spin 1", "a minute earlier than it could have been");
  assert.equal(client.has(second), false);
  assert.equal((await server.status()).totals.cancelled, 1);
});

test("overload: who comes too many hears busy at once, the important are served", async (t) => {
  const { server, port, release } = await start(t, "tasks: { queue: 4 }\nshed: { queueDelay: off, loopDelay: off }\n");
  const client = await openRpcClient(t, port);
  const holding = client.send("hold");
  await until("it runs", async () => (await waiting(server)) === 0 && (await server.status()).totals.requests === 1);
  const low = Array.from({ length: 4 }, () => client.send("spin 1", { priority: "low" }));
  await until("they wait", async () => (await waiting(server)) === 4);
  assert.equal(await client.ask("spin 1", { priority: "low" }), "busy");
  const high = client.send("spin 1", { priority: "high" });
  assert.equal(await client.reply(low.at(-1) ?? 0), "busy", "the last of the lowest gave way");
  release();
  assert.equal(await client.reply(high), "ok spin 1");
  for (const id of low.slice(0, -1)) assert.equal(await client.reply(id), "ok spin 1");
  assert.equal(await client.reply(holding), "ok hold");
  assert.equal((await server.status()).totals.shed, 2);
});

test("errors: the client learns what it is told, the log what happened", async (t) => {
  const { server, port } = await start(t);
  const client = await openRpcClient(t, port);
  assert.equal(await client.ask("throw"), "error internal error");
  assert.equal(await client.ask("refuse"), "error not today");
  for (let each = 0; each < 50; each++) assert.equal(await client.ask("throw"), "error internal error");
  assert.equal(await client.ask("still here"), "ok still here");
  const line = await server.logged("the failure", ({ msg }) => /an rpc handler failed/.test(msg));
  assert.match(JSON.stringify(line), /secret of/);
  const lines = server.lines.filter(({ msg }) => /an rpc handler failed/.test(msg));
  assert.ok(lines.length < 5, `${lines.length} lines`);
  assert.deepEqual((await server.status()).closes["handler-error"], 0);
});

test("the trace context arrives", async (t) => {
  const { port } = await start(t);
  const client = await openRpcClient(t, port);
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  assert.equal(await client.ask("trace", { traceparent }), `ok ${traceparent}`);
  assert.equal(await client.ask("trace"), "ok");
});

test("a stop: goodbye, what was sent by then is answered, exit 0; who does not close is closed", async (t) => {
  const { server, port } = await start(t);
  const [polite, deaf] = [await openRpcClient(t, port), await openRpcClient(t, port)];
  const asked = polite.send("wait 600");
  assert.equal(await deaf.ask("x"), "ok x");
  await until("both came", async () => (await server.status()).totals.requests === 2);
  server.signal("SIGTERM");
  await until("goodbyes", () => polite.goodbyes === 1 && deaf.goodbyes === 1);
  assert.equal(await polite.ask("crossing"), "ok crossing");
  assert.equal(await polite.reply(asked), "ok wait 600");
  polite.socket.end();
  assert.deepEqual([await polite.closed, await deaf.closed], [undefined, undefined]);
  assert.deepEqual(await server.exit(), { code: 0, signal: null });
});

/** Asks without end until told to stop; says how often it was answered. */
function keepAsking(client: RpcClient): { stop(): Promise<number> } {
  let stopped = false;
  const asking = (async () => {
    let answered = 0;
    for (; !stopped; answered++) {
      const [slow, quick] = [client.send(`spin ${answered % 2}`), client.send("x".repeat(answered % 3_000))];
      assert.equal(await client.reply(quick), `ok ${"x".repeat(answered % 3_000)}`.trim());
      assert.equal(await client.reply(slow), `ok spin ${answered % 2}`);
    }
    return answered;
  })();
  return {
    stop() {
      stopped = true;
      return asking;
    },
  };
}

test("reloads under requests: connections move to the new workers, every request is answered, nobody says goodbye", async (t) => {
  const { server, port } = await start(t, "shed: { queueDelay: off, loopDelay: off }\n");
  const clients = await Promise.all(Array.from({ length: 8 }, () => openRpcClient(t, port)));
  const load = clients.map(keepAsking);
  const pids = new Set<string>();
  const [watcher] = [await openRpcClient(t, port)];
  for (let round = 0; round < 3; round++) {
    pids.add(await watcher.ask("pid"));
    const { code, stderr } = await server.command("reload", "--replace", "--wait");
    assert.equal(code, 0, stderr);
  }
  pids.add(await watcher.ask("pid"));
  assert.equal(pids.size, 4, "the same connection, in four workers one after the other");
  const answered = await Promise.all(load.map((each) => each.stop()));
  assert.ok(
    answered.every((count) => count > 10),
    answered.join(" "),
  );
  assert.ok(clients.every(({ goodbyes }) => goodbyes === 0));
  const { closes, totals } = await server.status();
  assert.equal(
    Object.values(closes).reduce((sum, count) => sum + count),
    0,
  );
  assert.equal(totals.accepted, 9);
});

test("echo-rpc sends back what came; one that is not of the format ends only its own connection", async (t) => {
  const server = startServer(t, ["echo-rpc", "--listen", "127.0.0.1:0", "--workers", "1"]);
  const [port = 0] = await server.ready();
  const client = await openRpcClient(t, port);
  const large = "y".repeat(900_000);
  const ids = Array.from({ length: 100 }, (_, index) => client.send(`message ${index}`));
  assert.equal(await client.ask(large), `ok ${large}`);
  for (const [index, id] of ids.entries()) assert.equal(await client.reply(id), `ok message ${index}`);
  const bad = await openRpcClient(t, port);
  bad.socket.write(Buffer.alloc(16));
  assert.equal(await bad.closed, undefined);
  assert.equal((await server.status()).closes["frame-empty"], 1);
  assert.equal(await client.ask("on"), "ok on");
});
