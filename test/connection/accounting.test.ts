/** Whatever happens to a connection: it ends once, for one reason, and every figure returns to what it was. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CLOSE_REASONS, type CloseReason } from "#src/base/reasons.js";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { type Concurrency, defineService } from "#src/service/define.js";
import { openPeer, type Peer } from "../support/peer.js";
import { closesTotal, openServing } from "../support/serving.js";

interface State {
  readonly id: number;
}

interface Ending {
  readonly id: number;
  readonly reason: CloseReason;
}

/** A service that does what the line says, and writes down how its connections ended. */
function obedient(concurrency: Concurrency, ended: Ending[], waiting: (() => void)[]) {
  let opened = 0;
  return defineService({
    codec: line(),
    concurrency,
    limits: { frame: 100, inFlight: 3, highWater: 1_000, lowWater: 100, buffered: 5_000 },
    state: (): State => ({ id: opened++ }),
    onMessage(text, { connection }): string | undefined | Promise<string | undefined> {
      switch (text) {
        case "throw":
          throw new Error("asked to");
        case "reject":
          return Promise.reject(new Error("asked to"));
        case "later":
          return new Promise((resolve) => waiting.push(() => resolve("later")));
        case "never":
          return new Promise(() => {});
        case "close":
          connection.close();
          return "too late";
        case "reset":
          connection.reset("killed");
          return undefined;
        case "leave":
          connection.close();
          return Promise.reject(new Error("nobody waits"));
        case "pause":
          connection.pauseReads();
          return undefined;
        case "big":
          for (let i = 0; i < 30; i++) connection.send("x".repeat(90));
          return undefined;
        default:
          return text;
      }
    },
    onClose: (connection, reason) => void ended.push({ id: connection.state.id, reason }),
  });
}

const action = fc.oneof(
  fc
    .constantFrom("throw", "reject", "later", "never", "close", "leave", "reset", "pause", "big")
    .map((line_) => `push ${line_}\n`),
  fc.constantFrom("push a\n", "push hal", "push f\n", `push ${"x".repeat(200)}`, "push \xff\n", "push one\ntwo\n"),
  fc.constantFrom(
    "end",
    "peer-reset",
    "tick 100",
    "tick 4000",
    "tick 70000",
    "stall",
    "unstall",
    "drain",
    "release",
    "resume",
    "settle",
  ),
);
const concurrencies = fc.constantFrom<Concurrency>("serial", "ordered", "unordered");

test("random events: at most one end, seen by the service exactly when the connection is closed", async () => {
  await fc.assert(
    fc.asyncProperty(concurrencies, fc.array(action, { maxLength: 20 }), async (concurrency, actions) => {
      const ended: Ending[] = [];
      const waiting: (() => void)[] = [];
      const harness = testConnection(obedient(concurrency, ended, waiting));
      const { signal } = harness.connection;
      for (const each of actions) {
        const [name, argument = ""] = [each.split(" ", 1)[0], each.slice(each.indexOf(" ") + 1)];
        if (name === "push") harness.push(Buffer.from(argument, "latin1"));
        else if (name === "tick") harness.tick(Number(argument));
        else if (name === "end") harness.end();
        else if (name === "peer-reset") harness.peerReset();
        else if (name === "stall") harness.stallWrites();
        else if (name === "unstall") harness.resumeWrites();
        else if (name === "drain") harness.drain();
        else if (name === "release") waiting.shift()?.();
        else if (name === "resume") harness.connection.resumeReads();
        if (each === "settle" || name === "release") await harness.settle();
        assert.equal(ended.length, harness.closed === undefined ? 0 : 1);
        assert.equal(harness.connection.closed, harness.closed !== undefined);
        assert.equal(signal.aborted, harness.closed !== undefined);
      }
      harness.peerReset();
      await harness.settle();
      assert.equal(ended.length, 1);
      assert.equal(ended[0]?.reason, harness.closed);
      assert.equal(signal.reason.fields.given, harness.closed);
      assert.equal(harness.connection.bufferedBytes, 0);
    }),
    { numRuns: 1_500 },
  );
});

/** What real peers do at random. */
async function misbehave(peer: Peer, actions: readonly string[]): Promise<void> {
  for (const each of actions) {
    if (peer.closed) return;
    if (each === "end") peer.end();
    else if (each === "destroy") peer.socket.destroy();
    else if (each === "reset") peer.reset();
    else if (each === "deaf") peer.socket.pause();
    else peer.write(each);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("real connections: closes by reason add up to opened minus active, and nothing stays in flight", async (t) => {
  const ended: Ending[] = [];
  const waiting: (() => void)[] = [];
  const serving = await openServing(t, obedient("ordered", ended, waiting), {
    timeouts: { firstByte: 150, frame: 200, idle: 300, writeStall: 200 },
    socket: { sendBuffer: 4096 },
  });
  const peerAction = fc.constantFrom(
    "a\n",
    "later\n",
    "never\n",
    "throw\n",
    "close\n",
    "leave\n",
    "reset\n",
    "pause\n",
    "big\n",
    "hal",
    "\xff\n",
    `${"x".repeat(150)}\n`,
    "end",
    "destroy",
    "reset",
    "deaf",
  );
  const plans = fc.sample(fc.array(peerAction, { maxLength: 6 }), { numRuns: 300, seed: 42 });
  const addsUp = (): void => {
    assert.equal(closesTotal(serving), serving.figure("opened") - serving.figure("active"));
    assert.equal(closesTotal(serving), ended.length);
    assert.ok(serving.figure("inFlight") >= 0);
  };
  for (let from = 0; from < plans.length; from += 50) {
    const some = plans.slice(from, from + 50);
    const peers = await Promise.all(some.map(() => openPeer(t, serving.port)));
    await Promise.all(peers.map((peer, index) => misbehave(peer, some[index] ?? [])));
    for (const release of waiting.splice(0)) release();
    addsUp();
    for (const [index, peer] of peers.entries()) if (index % 2 === 0) peer.socket.destroy();
  }
  // Those that wait for a handler that never ends, or paused reads for good, end with the server.
  const stopped = serving.server.stop({ drainMs: 1_500 });
  const releasing = setInterval(() => {
    for (const release of waiting.splice(0)) release();
  }, 10);
  await stopped;
  clearInterval(releasing);
  addsUp();
  assert.equal(serving.figure("active"), 0);
  assert.equal(serving.figure("inFlight"), 0);
  assert.equal(ended.length, plans.length);
  assert.equal(new Set(ended.map(({ id }) => id)).size, plans.length, "no connection ended twice");
  for (const { reason } of ended) assert.ok(CLOSE_REASONS.includes(reason));
});
