/** rpc services without sockets: what a client's frames do, and what comes back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { DeadlineExceeded, HeadraceError, RequestCancelled, RpcError, ServerBusy } from "#src/base/errors.js";
import type { RpcPayload } from "#src/codec/rpc.js";
import { testConnection } from "#src/connection/harness.js";
import type { Context } from "#src/service/connection.js";
import { defineRpcService, type RpcSent, type RpcServiceDefinition } from "#src/service/rpc.js";
import { repliesIn, requestBytes, rpcBytes } from "../support/rpc-client.js";

const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Handling = Context<undefined, RpcSent, undefined>;
type Extra = Partial<RpcServiceDefinition<undefined, undefined>>;

/** "sync…" comes back at once, "throw" fails, everything else waits until the test says `answer`. */
function open(extra: Extra = {}, options: Parameters<typeof testConnection>[1] = {}) {
  const waiting = new Map<string, { resolve(payload: RpcPayload): void; reject(error: unknown): void }>();
  const contexts = new Map<string, Handling>();
  const begun: string[] = [];
  const service = defineRpcService({
    onRequest(payload, context): RpcPayload | Promise<RpcPayload> {
      const text = payload.toString();
      begun.push(text);
      contexts.set(text, context);
      if (text === "throw") throw new Error("a secret");
      if (text.startsWith("sync")) return text;
      return new Promise((resolve, reject) => waiting.set(text, { resolve, reject }));
    },
    ...extra,
  });
  const harness = testConnection(service, options as never);
  return {
    harness,
    begun,
    context: (text: string): Handling => contexts.get(text) ?? assert.fail(`${text} was not begun`),
    request: (text: string, of: Parameters<typeof requestBytes>[1] = {}) => harness.push(requestBytes(text, of)),
    cancel: (id: number) => harness.push(rpcBytes({ kind: "cancel", id })),
    answer: async (text: string, payload: RpcPayload = text): Promise<void> => {
      waiting.get(text)?.resolve(payload);
      await harness.settle();
    },
    fail: async (text: string, error: unknown): Promise<void> => {
      waiting.get(text)?.reject(error);
      await harness.settle();
    },
    sent: () => repliesIn(harness.sent()),
  };
}

test("replies leave as they are made, each with the id of its request", async () => {
  const { request, answer, sent } = open();
  request("a", { id: 7 });
  request("b", { id: 2 ** 32 - 1 });
  request("sync", { id: 0 });
  assert.deepEqual(sent(), ["0 ok sync"]);
  await answer("b");
  assert.deepEqual(sent(), ["4294967295 ok b"]);
  await answer("a");
  assert.deepEqual(sent(), ["7 ok a"]);
});

test("ordered: in the order of the requests; serial: one after the other", async () => {
  const ordered = open({ concurrency: "ordered" });
  ordered.request("a", { id: 1 });
  ordered.request("sync", { id: 2 });
  ordered.request("throw", { id: 3 });
  assert.deepEqual(ordered.sent(), []);
  await ordered.answer("a");
  assert.deepEqual(ordered.sent(), ["1 ok a", "2 ok sync", "3 error internal error"]);

  const serial = open({ concurrency: "serial" });
  serial.request("a", { id: 1 });
  serial.request("sync", { id: 2 });
  assert.deepEqual([serial.begun, serial.sent()], [["a"], []]);
  await serial.answer("a");
  assert.deepEqual(serial.sent(), ["1 ok a", "2 ok sync"]);
});

test("nothing, and an empty payload, are empty replies", async () => {
  const nothing = defineRpcService({ onRequest: () => {} });
  const later = defineRpcService({ onRequest: async () => {} });
  for (const service of [nothing, later]) {
    const harness = testConnection(service);
    harness.push(requestBytes("", { id: 3 }));
    await harness.settle();
    assert.deepEqual(repliesIn(harness.sent()), ["3 ok "]);
  }
});

test("a borrowed payload can be returned, at once and as a copy later; it is overwritten afterwards", async () => {
  let kept: Buffer | undefined;
  const harness = testConnection(
    defineRpcService({
      as: "borrowed",
      onRequest(payload): RpcPayload | Promise<RpcPayload> {
        kept = payload;
        return payload.toString().startsWith("sync") ? payload : Promise.resolve(Buffer.from(payload));
      },
    }),
  );
  for (const text of [
    "sync",
    "sync, and longer than seventeen bytes",
    "late",
    "late, and longer than seventeen bytes",
  ]) {
    harness.push(requestBytes(text));
    await harness.settle();
    assert.deepEqual(repliesIn(harness.sent()), [`1 ok ${text}`]);
    assert.ok(kept?.every((byte) => byte === 0xdb));
  }
});

// ---- what goes wrong ----

test("an error says nothing to the client but that there was one; an RpcError says its message", async () => {
  const { request, fail, sent, harness } = open();
  request("throw", { id: 1 });
  request("a", { id: 2 });
  await fail("a", Object.assign(new TypeError("a secret"), { stack: "a secret" }));
  request("b", { id: 3 });
  await fail("b", undefined);
  request("c", { id: 4 });
  await fail("c", new RpcError("no such game"));
  assert.deepEqual(sent(), [
    "1 error internal error",
    "2 error internal error",
    "3 error internal error",
    "4 error no such game",
  ]);
  assert.equal(harness.closed, undefined);
});

test("busy and late, by whatever pool or client, have statuses of their own", async () => {
  const { request, fail, sent } = open();
  request("a", { id: 1 });
  await fail("a", new ServerBusy("queue-full", "a secret"));
  request("b", { id: 2 });
  await fail("b", new DeadlineExceeded("a secret"));
  // Of another copy of this package.
  request("c", { id: 3 });
  await fail("c", Object.assign(new Error("a secret"), { code: "deadline-exceeded" }));
  assert.deepEqual(sent(), ["1 busy ", "2 deadline ", "3 deadline "]);
});

test("onError makes the payload of other errors; what it leaves, and its own errors, are internal", () => {
  const { request, sent } = open({
    onError(error, context) {
      assert.ok(context.id);
      assert.equal((error as Error).message, "a secret");
      return "sorry";
    },
  });
  request("throw", { id: 1 });
  assert.deepEqual(sent(), ["1 error sorry"]);
  for (const onError of [() => {}, () => undefined]) {
    const other = open({ onError });
    other.request("throw", { id: 1 });
    assert.deepEqual(other.sent(), ["1 error internal error"]);
  }
  const failing = open({
    onError() {
      throw new Error("another secret");
    },
  });
  failing.request("throw", { id: 1 });
  assert.deepEqual([failing.sent(), failing.harness.closed], [["1 error internal error"], undefined]);
});

test("a reply that is too large is an error reply", async () => {
  const { request, answer, sent, harness } = open({ limits: { frame: 64 } });
  request("a", { id: 1 });
  await answer("a", "x".repeat(65));
  assert.deepEqual(sent(), ["1 error internal error"]);
  request("b", { id: 2 });
  await answer("b", 5 as unknown as string);
  assert.deepEqual(sent(), ["2 error internal error"]);
  assert.equal(harness.closed, undefined);
});

test("the id of a request that waits is a protocol error; one that is answered is free again", async () => {
  const { request, answer, sent, harness } = open();
  request("a", { id: 1 });
  await answer("a");
  request("sync", { id: 1 });
  request("b", { id: 1 });
  assert.deepEqual(sent(), ["1 ok a", "1 ok sync"]);
  request("sync", { id: 1 });
  assert.equal(harness.closed, "protocol-error");
  assert.deepEqual(sent(), []);
});

test("what is no frame of the format ends the connection, each with its reason", () => {
  for (const [digits, reason] of [
    ["00000000", "frame-empty"],
    ["7fffffff", "frame-too-large"],
    ["0000000c050000000000000100000000", "protocol-error"],
    ["0000000c020000000000000100000000", "protocol-error"],
  ] as const) {
    const { harness } = open();
    harness.push(Buffer.from(digits, "hex"));
    assert.equal(harness.closed, reason);
  }
});

// ---- in flight ----

test("past limits.inFlight reads pause; what was sent beyond it is begun when there is room", async () => {
  const { request, answer, begun, sent, harness } = open({ limits: { inFlight: 2 } });
  for (const [index, text] of ["a", "b", "c", "d"].entries()) request(text, { id: index });
  assert.deepEqual(begun, ["a", "b"]);
  assert.ok(harness.readsPaused);
  await answer("b");
  assert.deepEqual(begun, ["a", "b", "c"]);
  await answer("a");
  assert.deepEqual(begun, ["a", "b", "c", "d"]);
  assert.deepEqual(sent(), ["1 ok b", "0 ok a"]);
});

test("a cancel aborts the request's signal and no other; it gets no reply", async () => {
  const { request, cancel, answer, context, sent } = open();
  request("a", { id: 1 });
  request("b", { id: 2 });
  const [first, second] = [context("a").signal, context("b").signal];
  cancel(1);
  assert.ok(first.aborted && first.reason instanceof RequestCancelled && !second.aborted);
  await answer("a");
  assert.deepEqual(sent(), []);
  await answer("b");
  assert.deepEqual(sent(), ["2 ok b"]);
});

test("a signal, and a task, that come after the cancel are cancelled too; the id is free", async () => {
  const { request, cancel, context, answer, sent } = open();
  request("a", { id: 1 });
  cancel(1);
  assert.ok(context("a").signal.reason instanceof RequestCancelled);
  request("sync", { id: 1 });
  await answer("a");
  assert.deepEqual(sent(), ["1 ok sync"]);
});

test("a cancel of what is answered, of nothing, or twice, does nothing", async () => {
  const { request, cancel, answer, sent, harness } = open();
  cancel(5);
  request("sync", { id: 1 });
  cancel(1);
  request("a", { id: 2 });
  cancel(2);
  cancel(2);
  await answer("a");
  request("sync", { id: 2 });
  assert.deepEqual(sent(), ["1 ok sync", "2 ok sync"]);
  assert.equal(harness.closed, undefined);
});

test("ordered: one that is cancelled holds nobody up", async () => {
  const { request, cancel, answer, sent } = open({ concurrency: "ordered" });
  request("a", { id: 1 });
  request("b", { id: 2 });
  request("sync", { id: 3 });
  await answer("b");
  cancel(1);
  assert.deepEqual(sent(), ["2 ok b", "3 ok sync"]);
});

test("who cancels without end gets busy while the handlers run on: at most limits.inFlight of them", async () => {
  const { request, cancel, answer, begun, sent } = open({ limits: { inFlight: 3 } });
  for (let id = 0; id < 10; id++) {
    request(`a${id}`, { id });
    cancel(id);
  }
  assert.deepEqual(begun, ["a0", "a1", "a2"]);
  assert.deepEqual(
    sent(),
    Array.from({ length: 7 }, (_, index) => `${index + 3} busy `),
  );
  await answer("a1");
  request("sync", { id: 1 });
  assert.deepEqual(sent(), ["1 ok sync"]);
});

// ---- deadlines ----

test("a request that is not answered by its deadline: the client is told in time, the signal is aborted", async () => {
  const { request, answer, context, sent, harness } = open();
  request("a", { id: 1, deadlineMs: 300 });
  request("b", { id: 2, deadlineMs: 100 });
  request("c", { id: 3 });
  const { signal } = context("b");
  harness.tick(98);
  assert.deepEqual(sent(), []);
  harness.tick(6);
  assert.deepEqual(sent(), ["2 deadline "]);
  assert.ok(signal.aborted && signal.reason instanceof DeadlineExceeded);
  harness.tick(100);
  harness.tick(90);
  assert.deepEqual(sent(), []);
  harness.tick(10);
  assert.deepEqual(sent(), ["1 deadline "]);
  await answer("a");
  await answer("b");
  harness.tick(60_000);
  await answer("c");
  assert.deepEqual(sent(), ["3 ok c"]);
});

test("the context says when the reply is due, and what is left", () => {
  const { request, context, harness } = open({ timeouts: { request: "2s" } });
  request("a", { id: 1, deadlineMs: 500 });
  request("b", { id: 2, deadlineMs: 5_000 });
  request("c", { id: 3 });
  const [a, b, c] = ["a", "b", "c"].map(context) as [Handling, Handling, Handling];
  assert.deepEqual([a.remainingMs(), b.remainingMs(), c.remainingMs()], [500, 2_000, 2_000]);
  assert.equal(b.deadline - a.deadline, 1_500);
  harness.tick(400);
  assert.deepEqual([a.remainingMs(), b.remainingMs()], [100, 1_600]);
  harness.tick(400);
  assert.equal(a.remainingMs(), 0);
  const none = open();
  none.request("a");
  assert.deepEqual([none.context("a").deadline, none.context("a").remainingMs()], [Infinity, Infinity]);
});

test("one whose deadline passes while it waits for its turn is never begun", async () => {
  const { request, answer, begun, sent, harness } = open({ concurrency: "serial" });
  request("a", { id: 1 });
  request("b", { id: 2, deadlineMs: 100 });
  request("sync", { id: 3, deadlineMs: 10_000 });
  harness.tick(150);
  await answer("a");
  assert.deepEqual(begun, ["a", "sync"]);
  assert.deepEqual(sent(), ["1 ok a", "2 deadline ", "3 ok sync"]);
});

test("deadlines do not free what still runs: past limits.inFlight such handlers the rest is busy", async () => {
  const { request, begun, answer, sent, harness } = open({ limits: { inFlight: 2 } });
  for (let round = 0; round < 3; round++) {
    request(`a${round}`, { id: round, deadlineMs: 10 });
    harness.tick(20);
  }
  assert.deepEqual(begun, ["a0", "a1"]);
  assert.deepEqual(sent(), ["0 deadline ", "1 deadline ", "2 busy "]);
  await answer("a0");
  request("sync", { id: 9 });
  assert.deepEqual(sent(), ["9 ok sync"]);
});

// ---- the rest of the frame ----

test("the trace context is there when it is asked for, and as it came", async () => {
  const { request, context, answer } = open();
  request("a", { id: 1, traceparent: TRACEPARENT });
  request("b", { id: 2 });
  await answer("b");
  assert.equal(context("a").traceparent, TRACEPARENT);
  assert.equal(context("b").traceparent, undefined);
});

test("middleware wraps payloads, the outermost first", async () => {
  const { request, answer, sent } = open({
    use: [
      (payload, _context, next) => {
        const reply = next(Buffer.from(`${payload.toString()}!`));
        return reply instanceof Promise ? reply : `<${String(reply)}>`;
      },
      (payload, _context, next) => next(Buffer.from(`${payload.toString()}?`)),
    ],
  });
  request("sync", { id: 1 });
  request("a", { id: 2 });
  await answer("a!?");
  assert.deepEqual(sent(), ["1 ok <sync!?>", "2 ok a!?"]);
});

// ---- goodbye ----

test("a goodbye tells the client to send no more; what it had sent by then is answered", async () => {
  const told: string[] = [];
  const { request, answer, sent, harness } = open({ onDraining: ({ id }) => void told.push(id) });
  request("a", { id: 1 });
  harness.drain();
  assert.deepEqual(sent(), ["goodbye"]);
  assert.deepEqual(told, [harness.connection.id]);
  request("sync", { id: 2 });
  await answer("a");
  assert.deepEqual(sent(), ["2 ok sync", "1 ok a"]);
  assert.equal(harness.closed, undefined, "it waits for the client to close");
  harness.end();
  assert.equal(harness.closed, "peer-closed");
  assert.deepEqual(sent(), [], "its client has left, and needs no proof");
});

test("a client that does not close, or sends on, is closed after `farewell`, once nothing is in flight", async () => {
  const idle = open();
  idle.harness.drain();
  idle.harness.tick(900);
  assert.equal(idle.harness.closed, undefined);
  idle.harness.tick(200);
  assert.equal(idle.harness.closed, "drain");
  assert.deepEqual(idle.sent(), ["goodbye", "last goodbye"]);

  const busy = open({ farewell: "200ms" });
  busy.request("a", { id: 1 });
  busy.harness.drain();
  busy.harness.tick(5_000);
  assert.equal(busy.harness.closed, undefined);
  await busy.answer("a");
  assert.deepEqual(busy.sent(), ["goodbye", "1 ok a", "last goodbye"]);
  assert.equal(busy.harness.closed, "drain");

  const insistent = open();
  insistent.request("a", { id: 1 });
  insistent.harness.drain();
  insistent.request("sync", { id: 2 });
  insistent.harness.tick(1_100);
  insistent.request("sync", { id: 3 });
  insistent.request("b", { id: 4 });
  assert.deepEqual(insistent.sent(), ["goodbye", "2 ok sync"]);
  await insistent.answer("a");
  assert.deepEqual(insistent.sent(), ["1 ok a", "last goodbye"]);
  assert.deepEqual([insistent.harness.closed, insistent.begun], ["drain", ["a", "sync"]]);

  const curt = open({ farewell: "off" });
  curt.harness.drain();
  assert.deepEqual([curt.sent(), curt.harness.closed], [["goodbye", "last goodbye"], "drain"]);

  const backedUp = open();
  backedUp.harness.drain();
  backedUp.harness.stallWrites();
  backedUp.harness.tick(1_100);
  backedUp.harness.resumeWrites();
  assert.deepEqual(backedUp.sent(), ["goodbye", "last goodbye"]);
});

test("an end out of order has no last goodbye: what was asked may have been begun", () => {
  const closing = open({ onRequest: (_payload, { connection }) => connection.close() });
  closing.harness.drain();
  closing.request("a", { id: 1 });
  assert.deepEqual([closing.sent(), closing.harness.closed], [["goodbye"], "server-close"]);

  const halting = open({ farewell: "1m" });
  halting.request("a", { id: 1 });
  halting.harness.drain();
  halting.harness.push(requestBytes("b", { id: 2 }).subarray(0, 9));
  halting.harness.tick(20_000);
  assert.deepEqual([halting.sent(), halting.harness.closed], [["goodbye"], "frame-timeout"]);
});

test("a connection moves between two requests, in the middle of a frame, and goes on", async () => {
  const { request, answer, harness, sent } = open();
  request("a", { id: 1 });
  await answer("a");
  const next = requestBytes("sync", { id: 1 });
  harness.push(next.subarray(0, 9));
  assert.deepEqual(sent(), ["1 ok a"]);
  const after = harness.moved();
  after.push(next.subarray(9));
  assert.deepEqual(repliesIn(after.sent()), ["1 ok sync"]);
  assert.throws(() => {
    after.push(requestBytes("b", { id: 5 }));
    after.moved();
  }, /while a request is in flight/);
});

test("what is left of a cancelled request does not keep its connection from moving", async () => {
  const { request, cancel, answer, harness } = open();
  request("a", { id: 1 });
  cancel(1);
  const after = harness.moved();
  await answer("a");
  after.push(requestBytes("sync", { id: 1 }));
  assert.deepEqual(repliesIn(after.sent()), ["1 ok sync"]);
});

test("state and env are as in any service, and typed", () => {
  const service = defineRpcService({
    env: () => ({ name: "worker" }),
    state: (_info, { name }) => ({ count: 0, name }),
    onOpen({ state }) {
      state.count = 40;
    },
    onRequest(payload, { connection, env }) {
      connection.state.count += payload.length;
      return `${env.name} ${connection.state.name} ${connection.state.count}`;
    },
  });
  const harness = testConnection(service, { env: { name: "test" } });
  harness.push(requestBytes("ab"));
  assert.deepEqual(repliesIn(harness.sent()), ["1 ok test test 42"]);
});

// ---- definitions ----

test("what is wrong with a definition is named", () => {
  const wrong = (definition: object, message: RegExp) =>
    assert.throws(
      () => defineRpcService(definition as never),
      (error) => error instanceof HeadraceError && error.code === "service-invalid" && message.test(error.message),
    );
  const onRequest = () => "";
  wrong({}, /onRequest: missing/);
  wrong({ onRequest, onReqest: onRequest }, /onReqest: unknown; did you mean onRequest/);
  wrong({ onRequest, codec: {} }, /codec: unknown/);
  wrong({ onRequest, as: "text" }, /as: "text" is unknown; allowed: bytes, borrowed/);
  wrong({ onRequest, onError: 5 }, /onError: not a function/);
  wrong({ onRequest, use: onRequest }, /use: not a list of functions/);
  wrong(null as never, /expects an object with onRequest/);
  wrong({ onRequest, farewell: "soon" }, /farewell/);
  wrong({ onRequest, concurrency: "wild" }, /concurrency: "wild" is unknown/);
  wrong({ onRequest, limits: { frames: 5 } }, /limits\.frames: unknown/);
});
