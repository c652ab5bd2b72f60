/** Clients of rpc, against real rpc services: many calls on one connection, deadlines that travel, late replies. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { RpcError, ServerBusy } from "#src/base/errors.js";
import { GOODBYE, LAST_GOODBYE, type RpcRequest, rpc } from "#src/codec/rpc.js";
import { defineRpcService } from "#src/service/rpc.js";
import { outcomeOf, rpcClientOf } from "../support/downstream.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const service = defineRpcService({
  async onRequest(payload, context) {
    const [order = "", number = "0"] = payload.toString().split(" ");
    if (order === "told") return String(context.remainingMs());
    if (order === "trace") return `${context.traceparent}`;
    if (order === "wrong") throw new RpcError("no such user");
    if (order === "busy") throw new ServerBusy("memory", "");
    if (order === "wait") await pause(Number(number));
    return payload;
  },
});

/** A server of rpc frames whose answers the test writes itself. */
async function openFrames(
  t: TestContext,
  answer: (request: RpcRequest, socket: Socket) => void,
): Promise<{ readonly target: string; readonly sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const codec = rpc();
    let held = Buffer.alloc(0);
    sockets.push(socket.on("error", () => {}));
    socket.on("data", (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      for (;;) {
        const used = codec.decode(held, 0, held.length, { seen: 0, mode: 0 }, 1024 ** 2);
        if (used <= 0) return;
        held = held.subarray(used);
        if (codec.message.kind === "request") answer(codec.message, socket);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { target: `127.0.0.1:${(server.address() as { port: number }).port}`, sockets };
}

function frameOf(message: Parameters<ReturnType<typeof rpc>["encodeInto"]>[0]): Buffer {
  const codec = rpc();
  const bytes = Buffer.alloc(codec.sizeOf(message));
  return bytes.subarray(0, codec.encodeInto(message, bytes, 0, 1024 ** 2));
}

const replyTo = ({ id, payload }: RpcRequest): Buffer => frameOf({ kind: "reply", id, status: "ok", payload });

test("many calls share one connection and get their own replies, in whatever order these come", async (t) => {
  const { port } = await openServing(t, service);
  const client = rpcClientOf(t, { targets: [`127.0.0.1:${port}`] });
  const payloads = Array.from({ length: 60 }, (_, index) => `wait ${(index * 7) % 30} ${index}`);
  const replies = await Promise.all(payloads.map((payload) => client.call(payload)));
  assert.deepEqual(replies.map(String), payloads);
  assert.equal(client.stats().counts.opened, 1);
});

test("more calls than one connection takes open a few more, and then wait", async (t) => {
  const { port } = await openServing(t, service);
  const client = rpcClientOf(t, {
    targets: [`127.0.0.1:${port}`],
    limits: { inFlight: 10, connectionsPerTarget: 3, waiting: 10_000 },
  });
  const calls = Array.from({ length: 2_000 }, (_, index) => client.call(`wait 1 ${index}`));
  const replies = await Promise.all(calls);
  assert.deepEqual(
    replies.map(String),
    calls.map((_, index) => `wait 1 ${index}`),
  );
  assert.equal(client.stats().counts.opened, 3);
});

test("the server is told what is left, never more", async (t) => {
  const { port } = await openServing(t, service);
  const client = rpcClientOf(t, { targets: [`127.0.0.1:${port}`] });
  const told = Number(await client.call("told", { timeoutMs: 400 }));
  assert.ok(told > 100 && told <= 400, String(told));
  // What it has waited for a connection is gone.
  const narrow = rpcClientOf(t, { targets: [`127.0.0.1:${port}`], limits: { inFlight: 1, connectionsPerTarget: 1 } });
  const [, later] = await Promise.all([narrow.call("wait 150"), narrow.call("told", { timeoutMs: 400 })]);
  assert.ok(Number(later) > 0 && Number(later) <= 250, String(later));
});

test("a trace context travels", async (t) => {
  const { port } = await openServing(t, service);
  const client = rpcClientOf(t, { targets: [`127.0.0.1:${port}`] });
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  assert.equal(String(await client.call("trace", { traceparent })), traceparent);
});

test("what the server says instead of a reply is an error of its own kind; the connection stays", async (t) => {
  const { port } = await openServing(t, service);
  const client = rpcClientOf(t, { targets: [`127.0.0.1:${port}`] });
  await assert.rejects(client.call("wrong"), { code: "remote-error", message: "no such user" });
  await assert.rejects(client.call("busy"), { code: "server-busy", because: "remote" });
  const { counts } = client.stats();
  assert.deepEqual([counts.ended["remote-error"], counts.ended["remote-busy"], counts.opened], [1, 1, 1]);
});

test("a late reply is dropped and counted, and the connection goes on", async (t) => {
  const late: (() => void)[] = [];
  const downstream = await openFrames(t, (request, socket) => {
    if (request.payload.toString() === "late") late.push(() => socket.write(replyTo(request)));
    else socket.write(replyTo(request));
  });
  const client = rpcClientOf(t, { targets: [downstream.target] });
  await client.call("a");
  assert.equal(await outcomeOf(client.call("late", { timeoutMs: 50 })), "deadline-exceeded");
  assert.equal(late.length, 1);
  assert.equal(String(await client.call("b")), "b");
  late[0]?.();
  await until("it to be counted", () => client.stats().counts.late === 1);
  assert.equal(String(await client.call("c")), "c");
  assert.deepEqual([client.stats().counts.opened, client.stats().pending], [1, 0]);
});

test("a caller that gives up cancels the request at the server", async (t) => {
  let reason: unknown;
  const waiting = defineRpcService({
    onRequest: (_payload, { signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          reason = signal.reason;
          reject(signal.reason);
        });
      }),
  });
  const { port } = await openServing(t, waiting);
  const client = rpcClientOf(t, { targets: [`127.0.0.1:${port}`] });
  const gone = new AbortController();
  const outcome = outcomeOf(client.call("x", { signal: gone.signal }));
  await until("the request to be sent", () => client.stats().targets[0]?.inFlight === 1);
  gone.abort(new Error("the user has left"));
  assert.equal(await outcome, "Error");
  await until("the server to hear of it", () => reason);
  assert.equal((reason as { code: string }).code, "request-cancelled");
  assert.equal(client.stats().counts.opened, 1);
});

test("a server that hangs: after three deadlines without a byte a new connection is tried; being slow is no fault", async (t) => {
  const downstream = await openFrames(t, () => {});
  const client = rpcClientOf(t, { targets: [downstream.target] });
  assert.equal(await outcomeOf(client.call("x", { timeoutMs: 200 })), "deadline-exceeded");
  for (let i = 0; i < 2; i++) {
    assert.equal(await outcomeOf(client.call("x", { timeoutMs: 20 })), "deadline-exceeded");
  }
  assert.equal(client.stats().counts.evicted.silent, 1);
  assert.equal(await outcomeOf(client.call("x", { timeoutMs: 20 })), "deadline-exceeded");
  assert.deepEqual([client.stats().counts.opened, client.stats().targets[0]?.state], [2, "up"]);
});

test("a connection that is taken for dead keeps the calls that still have time", async (t) => {
  const downstream = await openFrames(t, (request, socket) => {
    if (request.payload.toString() === "slow") setTimeout(() => socket.write(replyTo(request)), 300);
  });
  const client = rpcClientOf(t, { targets: [downstream.target] });
  const slow = client.call("slow", { timeoutMs: 5_000 });
  for (let i = 0; i < 4; i++) assert.equal(await outcomeOf(client.call("x", { timeoutMs: 20 })), "deadline-exceeded");
  assert.equal(String(await slow), "slow");
  await until("the old connection to go", () => client.stats().counts.evicted.silent === 1);
});

test("deadlines that pass in one turn, or in one silence, do not make a connection a dead one", async (t) => {
  const downstream = await openFrames(t, (request, socket) => {
    if (request.payload.toString() !== "never") socket.write(replyTo(request));
  });
  const client = rpcClientOf(t, { targets: [downstream.target] });
  await client.call("a");
  const never = (timeoutMs: number): Promise<string> => outcomeOf(client.call("never", { timeoutMs }));
  // A reply comes while they wait.
  const [answered, unanswered] = [client.call("b"), Array.from({ length: 10 }, () => never(60))];
  assert.equal(String(await answered), "b");
  assert.deepEqual(new Set(await Promise.all(unanswered)), new Set(["deadline-exceeded"]));
  // None does; but it is one and the same silence that they have waited for.
  await Promise.all([40, 40, 40, 50, 60, 70].map(never));
  await never(20);
  assert.equal(client.stats().counts.evicted.silent, 0);
  assert.equal(String(await client.call("c")), "c");
  assert.deepEqual([client.stats().counts.opened, client.stats().targets[0]?.state], [1, "up"]);
});

for (const [what, farewell, outcome, moved] of [
  ["FIN", () => Buffer.alloc(0), "connection-closed", 0],
  ["a second goodbye that is not the last", () => frameOf(GOODBYE), "connection-closed", 0],
  ["the last one", () => frameOf(LAST_GOODBYE), "answered", 1],
] as const) {
  test(`goodbye, then ${what}: what was not answered is ${moved ? "" : "not "}asked elsewhere`, async (t) => {
    const downstream = await openFrames(t, (request, socket) => {
      if (socket !== downstream.sockets[0]) socket.write(replyTo(request));
      else socket.end(Buffer.concat([frameOf(GOODBYE), farewell()]));
    });
    const client = rpcClientOf(t, { targets: [downstream.target] });
    assert.equal(await outcomeOf(client.call("a")), outcome);
    assert.equal(client.stats().counts.moved, moved);
  });
}

test("goodbye: what was not answered by the last one is asked elsewhere, and no caller notices", async (t) => {
  let asked = 0;
  const downstream = await openFrames(t, (request, socket) => {
    // The first connection takes leave while calls are on their way.
    if (socket === downstream.sockets[0] && ++asked > 5) {
      if (asked === 6) socket.end(Buffer.concat([frameOf(GOODBYE), frameOf(LAST_GOODBYE)]));
    } else {
      socket.write(replyTo(request));
    }
  });
  const client = rpcClientOf(t, { targets: [downstream.target] });
  const calls = Array.from({ length: 20 }, (_, index) => client.call(String(index)));
  assert.deepEqual(
    (await Promise.all(calls)).map(String),
    calls.map((_, index) => String(index)),
  );
  const { moved, evicted, ended } = client.stats().counts;
  assert.deepEqual([moved, evicted.goodbye, ended.ok], [15, 1, 20]);
});

test("goodbye on an idle connection: it is not used again", async (t) => {
  const downstream = await openFrames(t, (request, socket) => socket.write(replyTo(request)));
  const client = rpcClientOf(t, { targets: [downstream.target] });
  await client.call("a");
  downstream.sockets[0]?.write(frameOf(GOODBYE));
  await until("it to be closed", () => client.stats().counts.evicted.goodbye === 1);
  assert.equal(String(await client.call("b")), "b");
  assert.equal(downstream.sockets.length, 2);
});

test("RST with calls under way: they fail, whatever the server has done of them", async (t) => {
  const downstream = await openFrames(t, (_request, socket) => socket.resetAndDestroy());
  const client = rpcClientOf(t, { targets: [downstream.target] });
  assert.equal(await outcomeOf(client.call("a")), "connection-closed");
  assert.equal(client.stats().counts.ended["connection-lost"], 1);
});

for (const [what, bytes] of [
  ["a reply to what was never asked", frameOf({ kind: "reply", id: 4_000, status: "ok", payload: "x" })],
  ["a request", Buffer.from("0000000c010000000000000100000000", "hex")],
  ["no frame at all", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")],
] as const) {
  test(`garbage: ${what} ends the connection, and the calls on it are told so`, async (t) => {
    const downstream = await openFrames(t, (_request, socket) => socket.write(bytes));
    const client = rpcClientOf(t, { targets: [downstream.target] });
    assert.match(await outcomeOf(client.call("a")), /^(reply-invalid|connection-closed)$/);
    await until("it to be gone", () => client.stats().targets[0]?.connections === 0);
  });
}
