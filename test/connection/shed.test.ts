/** Requests that are refused, and tasks that end with their request: a real engine, real sockets, real threads. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ServerBusy } from "#src/base/errors.js";
import { line } from "#src/codec/line.js";
import { defineService, type ErrorReply } from "#src/service/define.js";
import { definePool, type Pool } from "#src/tasks/define.js";
import type { Priority } from "#src/tasks/queue.js";
import { openClient } from "../support/client.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

type Work = typeof import("../tasks/work.js");

const OFF = { request: "off", idle: "off", firstByte: "off" } as const;

/** Answers "go" at once and everything else when `release` is called. */
function gated(extra: object = {}) {
  const waiting: (() => void)[] = [];
  const service = defineService({
    codec: line(),
    concurrency: "unordered",
    onMessage: (text): string | Promise<string> =>
      text === "go" ? "gone" : new Promise((resolve) => waiting.push(() => resolve(text))),
    ...extra,
  });
  return {
    service,
    release: (): void => {
      for (const each of waiting.splice(0)) each();
    },
  };
}

test("past limits.inFlightPerWorker requests of any connection get the busy reply, and there is room again", async (t) => {
  const { service, release } = gated({ busy: (text: string) => `busy ${text}` });
  const { port, figure } = await openServing(t, service, { limits: { inFlightPerWorker: 2 } });
  const [a, b] = [await openClient(t, port), await openClient(t, port)];
  a.send("1");
  b.send("2");
  await until("two are in flight", () => figure("inFlight") === 2);
  assert.deepEqual([await a.ask("3"), await b.ask("go")], ["busy 3", "busy go"]);
  assert.deepEqual([figure("shed"), figure("requests")], [2, 4]);
  release();
  assert.deepEqual([await a.line(), await b.line()], ["1", "2"]);
  assert.equal(await a.ask("go"), "gone");
  assert.deepEqual([figure("shed"), figure("inFlight")], [2, 0]);
});

test("what is in flight on a connection that ends makes room", async (t) => {
  const { service } = gated({ busy: () => "busy" });
  const { port, figure, server } = await openServing(t, service, { limits: { inFlightPerWorker: 3 } });
  for (let round = 0; round < 3; round++) {
    const leaving = await openClient(t, port);
    for (const text of ["1", "2", "3"]) leaving.send(text);
    await until("three are in flight", () => figure("inFlight") === 3);
    leaving.socket.resetAndDestroy();
    await until("none is", () => figure("inFlight") === 0);
    assert.equal(server.endpoints[0]?.gate.inFlight, 0);
  }
  assert.equal(await (await openClient(t, port)).ask("go"), "gone");
});

test("the last tenths are for higher priorities", async (t) => {
  const priority = (text: string): Priority =>
    text.startsWith("h") ? "high" : text.startsWith("l") ? "low" : "normal";
  const { service } = gated({ busy: () => "busy", priority });
  const { port, figure } = await openServing(t, service, { limits: { inFlightPerWorker: 10, inFlight: 64 } });
  const client = await openClient(t, port);
  let sent = 0;
  const fill = async (text: string, times: number): Promise<number> => {
    const before = figure("shed");
    for (let each = 0; each < times; each++) client.send(text);
    sent += times;
    await until("they came", () => figure("requests") === sent);
    return figure("shed") - before;
  };
  assert.equal(await fill("low", 10), 2);
  assert.equal(await fill("normal", 10), 9);
  assert.equal(await fill("high", 10), 9);
  assert.equal(figure("inFlight"), 10);
});

test("without a busy reply onError is asked; without that the connection is closed, and the reason is overload", async (t) => {
  const errors: unknown[] = [];
  const onError = (error: unknown): ErrorReply<string> => {
    errors.push(error);
    return { reply: "later" };
  };
  const answered = gated({ onError });
  const one = await openServing(t, answered.service, { limits: { inFlightPerWorker: 1 } });
  const client = await openClient(t, one.port);
  client.send("1");
  assert.equal(await client.ask("2"), "later");
  assert.ok(errors[0] instanceof ServerBusy && errors[0].because === "in-flight");
  assert.equal(one.figure("shed"), 1);

  const closing = gated();
  const other = await openServing(t, closing.service, { limits: { inFlightPerWorker: 1 } });
  const [holder, late] = [await openClient(t, other.port), await openClient(t, other.port)];
  holder.send("1");
  await until("it is in flight", () => other.figure("inFlight") === 1);
  late.send("2");
  assert.equal(await late.closed, undefined, "closed in order");
  assert.deepEqual(other.closes(), { overload: 1 });
  assert.equal(other.figure("shed"), 1);
});

test("in an ordered service the busy reply waits its turn", async (t) => {
  const { service, release } = gated({ busy: () => "busy", concurrency: "ordered" });
  const { port, figure } = await openServing(t, service, { limits: { inFlightPerWorker: 1 } });
  const client = await openClient(t, port);
  client.send("1");
  client.send("2");
  await until("the second is refused", () => figure("shed") === 1);
  release();
  assert.deepEqual([await client.line(), await client.line()], ["1", "busy"]);
});

test("an overloaded loop sheds, and stops when it is in time again", async (t) => {
  let blockMs = 40;
  const service = defineService({
    codec: line({ as: "borrowed" }),
    onMessage(bytes) {
      const until = performance.now() + blockMs;
      while (performance.now() < until);
      return bytes;
    },
    busy: () => "busy",
  });
  const { port, figure } = await openServing(t, service, { shed: { loopDelay: 20 } });
  const client = await openClient(t, port);
  // As many at once as make each turn of the loop a long one.
  client.socket.on("text", () => {});
  let stop = false;
  const load = (async () => {
    while (!stop) {
      for (let each = 0; each < 4; each++) client.send("x");
      for (let each = 0; each < 4; each++) await client.line();
    }
  })();
  await until("it sheds", () => figure("shed") > 5);
  blockMs = 0;
  stop = true;
  await load;
  await until("it has stopped", async () => {
    const before = figure("shed");
    for (let each = 0; each < 20; each++) await client.ask("x");
    return figure("shed") === before;
  });
});

test("a loop that stands still for a second, once, sheds nothing", async (t) => {
  const service = defineService({
    codec: line(),
    onMessage(text) {
      const until = performance.now() + (text === "block" ? 1_000 : 0);
      while (performance.now() < until);
      return text;
    },
    busy: () => "busy",
  });
  const { port, figure } = await openServing(t, service, {});
  const clients = await Promise.all(Array.from({ length: 20 }, () => openClient(t, port)));
  clients[0]?.send("block");
  for (const client of clients.slice(1)) for (let each = 0; each < 50; each++) client.send("x");
  for (const client of clients.slice(1)) for (let each = 0; each < 50; each++) assert.equal(await client.line(), "x");
  assert.equal(await clients[0]?.line(), "block");
  assert.equal(figure("shed"), 0);
});

// ---- with a pool ----

function working(t: TestContext, extra: object = {}) {
  const pool: Pool<Work> = definePool<Work>({
    name: "work",
    module: new URL("../tasks/work.js", import.meta.url),
    threads: 1,
  });
  t.after(() => pool.close());
  const errors: unknown[] = [];
  const service = defineService({
    codec: line({ as: "borrowed" }),
    concurrency: "unordered",
    pools: [pool],
    async onMessage(bytes, context): Promise<string> {
      const text = bytes.toString();
      const [kind, number] = text.split(" ");
      try {
        if (kind === "spin") await context.run(pool, "spin", Number(number));
        else await context.run(pool, kind as "exits");
      } catch (error) {
        errors.push(error);
        throw error;
      }
      return text;
    },
    ...extra,
  });
  const codes = (): unknown[] => errors.map((error) => (error as { code: unknown }).code);
  return { pool, service, codes };
}

test("a client that leaves takes its tasks out of the queue", async (t) => {
  const { pool, service, codes } = working(t);
  const { port, figure } = await openServing(t, service, {});
  const [leaving, staying] = [await openClient(t, port), await openClient(t, port)];
  staying.send("spin 300");
  await until("it runs", () => figure("inFlight") === 1 && pool.waiting === 0);
  for (let each = 0; each < 10; each++) leaving.send("spin 1");
  await until("ten wait", () => pool.waiting === 10);
  leaving.socket.resetAndDestroy();
  await until("none waits", () => pool.waiting === 0);
  assert.deepEqual(codes(), Array(10).fill("connection-closed"));
  assert.equal(await staying.line(), "spin 300");
});

test("a request's deadline takes its tasks out of the queue, and answers it", async (t) => {
  const onError = (): ErrorReply<string> => ({ reply: "late" });
  const { pool, service, codes } = working(t, { onError });
  const { port, figure } = await openServing(t, service, { timeouts: { ...OFF, request: 150 } });
  const [one, other] = [await openClient(t, port), await openClient(t, port)];
  one.send("spin 600");
  await until("it runs", () => figure("inFlight") === 1 && pool.waiting === 0);
  const askedAt = performance.now();
  assert.equal(await other.ask("spin 1"), "late");
  assert.ok(performance.now() - askedAt < 450, "not when its turn came");
  assert.equal(pool.waiting, 0);
  assert.deepEqual(codes().slice(-1), ["deadline-exceeded"]);
  assert.equal(await one.line(), "late", "the one that runs too");
  assert.equal(figure("inFlight"), 0);
});

test("tasks that the pool refuses get the busy reply, of the request as it was", async (t) => {
  const busy = (bytes: Uint8Array): string => `busy ${Buffer.from(bytes).toString()}`;
  const { pool, service } = working(t, { busy });
  const { port, figure } = await openServing(t, service, { tasks: { queue: 2 } });
  const client = await openClient(t, port);
  client.send("spin 300");
  await until("it runs", () => figure("inFlight") === 1 && pool.waiting === 0);
  client.send("spin 1\nspin 2");
  await until("they wait", () => pool.waiting === 2);
  // In one segment: the first two are refused by the pool before that is known to be full, then by the gate.
  client.send(["spin 3", "spin 4", "spin 5", "spin 6"].join("\n"));
  const replies = [];
  for (let each = 0; each < 7; each++) replies.push(await client.line());
  assert.deepEqual(replies.slice(0, 4).toSorted(), ["busy spin 3", "busy spin 4", "busy spin 5", "busy spin 6"]);
  assert.deepEqual(replies.slice(4).toSorted(), ["spin 1", "spin 2", "spin 300"]);
  assert.equal(figure("shed"), 4);
  assert.equal(await client.ask("spin 0"), "spin 0");
});

test("a thread that dies fails its request only", async (t) => {
  const { service, codes } = working(t);
  const { port, closes } = await openServing(t, service, { shed: { queueDelay: "off" } });
  const [unlucky, other] = [await openClient(t, port), await openClient(t, port)];
  unlucky.send("exits");
  assert.equal(await unlucky.closed, undefined);
  assert.deepEqual(codes(), ["thread-died"]);
  assert.equal(await other.ask("spin 0"), "spin 0");
  assert.deepEqual(closes(), { "handler-error": 1 });
});

test("a stop finishes what was accepted, the tasks that wait included", async (t) => {
  const { pool, service } = working(t);
  const { port, server, figure } = await openServing(t, service, { shed: { queueDelay: "off" } });
  const clients = await Promise.all(Array.from({ length: 10 }, () => openClient(t, port)));
  for (const client of clients) client.send("spin 20");
  await until("all are in flight", () => figure("inFlight") === 10 && pool.waiting > 5);
  const { closed, forced } = await server.stop({ drainMs: 10_000 });
  assert.deepEqual([closed, forced], [10, 0]);
  for (const client of clients) assert.equal(await client.line(), "spin 20");
  await assert.rejects(pool.run("same", [1]), { code: "server-busy", because: "closing" });
});

test("a pool that the service does not name is not started behind its back", async (t) => {
  const { service, codes } = working(t, { pools: [] });
  const { port } = await openServing(t, service, {});
  const client = await openClient(t, port);
  client.send("spin 1");
  await client.closed;
  assert.deepEqual(codes(), ["service-invalid"]);
});

test("in an ordered service what is refused, or answered at once, behind a slow one is not in flight", async (t) => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    concurrency: "ordered",
    busy: () => "busy",
    onMessage: (text): string | Promise<string> =>
      text === "slow" ? new Promise((resolve) => (release = () => resolve(text))) : text,
  });
  const { port, figure, server } = await openServing(t, service, { limits: { inFlightPerWorker: 2 } });
  const [gate] = server.endpoints.map((endpoint) => endpoint.gate);
  const [a, b] = [await openClient(t, port), await openClient(t, port)];
  for (const text of ["slow", "1", "2", "3"]) a.send(text);
  await until("they wait for their turn", () => figure("requests") === 4);
  assert.deepEqual([figure("inFlight"), gate?.inFlight, figure("shed")], [1, 1, 0]);
  assert.equal(await b.ask("another"), "another");
  release?.();
  for (const text of ["slow", "1", "2", "3"]) assert.equal(await a.line(), text);
  assert.deepEqual([figure("inFlight"), gate?.inFlight], [0, 0]);
  for (const text of ["slow", "1"]) a.send(text);
  await until("one waits again", () => figure("requests") === 7);
  a.socket.resetAndDestroy();
  await until("it has gone", () => server.engine.open === 1);
  assert.deepEqual([figure("inFlight"), gate?.inFlight], [0, 0], "of a connection that ends nothing stays counted");
});
