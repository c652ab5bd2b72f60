/** A request's time, spent by the calls that its handler makes: context.call. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { RpcError } from "#src/base/errors.js";
import type { Client } from "#src/client/define.js";
import { line } from "#src/codec/line.js";
import type { Context } from "#src/service/connection.js";
import { defineService } from "#src/service/define.js";
import { defineRpcService } from "#src/service/rpc.js";
import { lineClient, openDownstream, outcomeOf, rpcClientOf } from "../support/downstream.js";
import { openPeer } from "../support/peer.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Says what it was told; "wait 100" after so many ms. */
const back = defineRpcService({
  async onRequest(payload, context) {
    const told = Math.round(context.remainingMs());
    const [order = "", number = "0"] = payload.toString().split(" ");
    if (order === "wait") await pause(Number(number));
    return `${told} ${context.traceparent ?? "-"}`;
  },
});

type Asking = (
  client: Client<string | Uint8Array, Buffer>,
  // biome-ignore lint/suspicious/noExplicitAny: whatever the service's types are
  context: Context<any, any, any>,
) => Promise<string>;

/** A service whose handler asks `back`, and a client of it. */
async function openFront(t: Parameters<typeof openServing>[0], ask: Asking): Promise<Client<string, Buffer>> {
  const behind = await openServing(t, back);
  const client = rpcClientOf(t, { targets: [`127.0.0.1:${behind.port}`] });
  const front = await openServing(t, defineRpcService({ onRequest: (_payload, context) => ask(client, context) }));
  return rpcClientOf(t, { targets: [`127.0.0.1:${front.port}`] });
}

test("a downstream gets what is left of the request, less what the handler has used", async (t) => {
  const front = await openFront(t, async (client, context) => {
    await pause(100);
    return String(await context.call(client, ""));
  });
  const told = Number.parseInt(String(await front.call("", { timeoutMs: 500 })), 10);
  assert.ok(told > 100 && told <= 400, String(told));
});

test("one after the other: each gets what the one before has left", async (t) => {
  const front = await openFront(t, async (client, context) => {
    const first = Number.parseInt(String(await context.call(client, "wait 100")), 10);
    const second = Number.parseInt(String(await context.call(client, "")), 10);
    return `${first} ${second}`;
  });
  const [first = 0, second = 0] = String(await front.call("", { timeoutMs: 400 }))
    .split(" ")
    .map(Number);
  // Both are read off clocks of 4 ms.
  assert.ok(first <= 400 && first - second >= 100 - 2 * 4, `${first}, then ${second}`);
});

test("at most what the handler allows, and never more than is left", async (t) => {
  const front = await openFront(t, async (client, context) => {
    const less = Number.parseInt(String(await context.call(client, "", { atMostMs: 50 })), 10);
    const more = Number.parseInt(String(await context.call(client, "", { atMostMs: 60_000 })), 10);
    return `${less} ${more}`;
  });
  const [less = 0, more = 0] = String(await front.call("", { timeoutMs: 400 }))
    .split(" ")
    .map(Number);
  assert.ok(less > 0 && less <= 50 && more > 50 && more <= 400, `${less}, ${more}`);
});

test("what is late is given up in time, and the handler can still answer", async (t) => {
  const front = await openFront(t, async (client, context) => {
    const slow = await outcomeOf(context.call(client, "wait 5000", { atMostMs: context.remainingMs() - 40 }));
    return slow;
  });
  const begun = performance.now();
  assert.equal(String(await front.call("", { timeoutMs: 400 })), "deadline-exceeded");
  const ms = performance.now() - begun;
  // Two hops, each with a clock of 4 ms at both ends and whole milliseconds on the wire.
  assert.ok(ms >= 360 - 2 * (2 * 4 + 1) && ms < 400, `${ms} ms`);
});

test("no time left: nothing is sent", async (t) => {
  let outcome = "";
  const front = await openFront(t, async (client, context) => {
    await pause(150);
    outcome = await outcomeOf(context.call(client, ""));
    return "";
  });
  assert.equal(await outcomeOf(front.call("", { timeoutMs: 80 })), "deadline-exceeded");
  await until("the handler to go on", () => outcome);
  assert.match(outcome, /^(deadline-exceeded|request-cancelled)$/);
});

test("the trace context goes along", async (t) => {
  const front = await openFront(t, async (client, context) => String(await context.call(client, "")));
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  assert.match(String(await front.call("", { traceparent })), new RegExp(traceparent));
});

test("a client that leaves takes the calls of its requests with it", async (t) => {
  const downstream = await openDownstream(t, () => {});
  const { defineClient } = await import("#src/client/define.js");
  const client = defineClient({ name: "down", codec: line(), targets: [downstream.target] });
  t.after(() => client.close(0));
  const outcomes: string[] = [];
  const service = defineService({
    codec: line(),
    async onMessage(text, context) {
      outcomes.push(await outcomeOf(context.call(client, text)));
      return text;
    },
  });
  const { port } = await openServing(t, service);
  const peer = await openPeer(t, port);
  peer.write("hello\n");
  await until("the question", () => downstream.asked.length === 1);
  peer.reset();
  await until("the call to be given up", () => outcomes.length === 1);
  assert.deepEqual(outcomes, ["connection-closed"]);
  await until("its connection to go", () => downstream.open === 0);
});

test("a request that is answered gives up the calls that it has not waited for; its signal is left alone", async (t) => {
  const downstream = await openDownstream(t, (text, socket) => {
    if (text !== "hang") socket.write(`${text}\n`);
  });
  const client = lineClient(t, { targets: [downstream.target] });
  const outcomes: string[] = [];
  const signals: AbortSignal[] = [];
  const service = defineRpcService({
    async onRequest(payload, context) {
      signals.push(context.signal);
      const slow = context.call(client, "hang");
      // Nobody hears how this one ends.
      void context.call(client, "hang");
      slow.catch((error: { code: string }) => outcomes.push(error.code));
      if (payload.toString() === "fail") throw new RpcError("at once");
      return context.call(client, "quick");
    },
  });
  const { port } = await openServing(t, service);
  const front = rpcClientOf(t, { targets: [`127.0.0.1:${port}`] });
  assert.equal(String(await front.call("")), "quick");
  assert.equal(await outcomeOf(front.call("fail")), "remote-error");
  await until("both to be given up", () => outcomes.length === 2);
  assert.deepEqual(outcomes, ["request-cancelled", "request-cancelled"]);
  assert.deepEqual([client.stats().pending, signals.map(({ aborted }) => aborted)], [0, [false, false]]);
});

test("a handler that has answered without a promise, or not yet, keeps its calls", async (t) => {
  const later: (() => void)[] = [];
  const downstream = await openDownstream(t, (text, socket) => later.push(() => socket.write(`${text}\n`)));
  const client = lineClient(t, { targets: [downstream.target] });
  const service = defineService({
    codec: line(),
    onMessage(text: string, context): string | Promise<undefined> {
      context.call(client, text).then((reply) => context.connection.send(reply));
      return text === "now" ? "first" : Promise.resolve(undefined);
    },
  });
  const { port } = await openServing(t, service);
  const peer = await openPeer(t, port);
  peer.write("now\nlater\n");
  await until("both questions", () => later.length === 2);
  for (const answer of later) answer();
  await until("both replies", () => peer.text.length === "first\nnow\nlater\n".length);
  assert.deepEqual(peer.text.split("\n").sort(), ["", "first", "later", "now"]);
});

test("what is no client is said so", async (t) => {
  const service = defineService({
    codec: line(),
    onMessage: (_text, context) => outcomeOf(context.call({ name: "x" } as never, "y")),
  });
  const { port } = await openServing(t, service);
  const peer = await openPeer(t, port);
  peer.write("hello\n");
  await peer.receives(1);
  assert.equal(peer.text, "service-invalid\n");
});

test("a worker that stops lets handlers finish their calls, and closeEnv make some; idle connections hold up nothing", async (t) => {
  const downstream = await openDownstream(t, (text, socket) => setTimeout(() => socket.write(`${text}\n`), 100));
  const { defineClient } = await import("#src/client/define.js");
  const replies: string[] = [];
  const service = defineService({
    codec: line(),
    env: () => defineClient({ name: "down", codec: line(), targets: [downstream.target] }),
    onMessage: (text, context) => context.call(context.env, text),
    async closeEnv(client) {
      replies.push(await client.call("farewell"));
      await client.close();
    },
  });
  const { server, port } = await openServing(t, service);
  const peer = await openPeer(t, port);
  peer.write("hello\n");
  await until("the question", () => downstream.asked.length === 1);
  const begun = performance.now();
  assert.deepEqual(await server.stop({ drainMs: 10_000 }), { closed: 1, forced: 0 });
  assert.ok(performance.now() - begun < 3_000);
  assert.deepEqual([peer.text, replies], ["hello\n", ["farewell"]]);
  await until("no connection", () => downstream.open === 0);
});

test("env may use clients before the worker has begun", async (t) => {
  const downstream = await openDownstream(t);
  const { defineClient } = await import("#src/client/define.js");
  const client = defineClient({ name: "down", codec: line(), targets: [downstream.target] });
  const service = defineService({
    codec: line(),
    env: () => client.call("warm"),
    onMessage: (_text, { env }) => env,
  });
  const { port, server } = await openServing(t, service);
  const peer = await openPeer(t, port);
  peer.write("hello\n");
  await peer.receives(5);
  assert.equal(peer.text, "warm\n");
  server.abort();
  // The next call has an engine again.
  assert.equal(await client.call("after"), "after");
  await client.close();
});
