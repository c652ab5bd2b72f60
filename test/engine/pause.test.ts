/** Pausing reads: by TCP, without losing anything, and without spinning whatever the peer does meanwhile. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const ROUNDS = WORKER_FIELDS.indexOf("rounds");

/** Rounds while nothing should happen. */
async function roundsWithin(totals: Float64Array, ms: number): Promise<number> {
  const before = totals[ROUNDS] as number;
  await delay(ms);
  return (totals[ROUNDS] as number) - before;
}

test("paused: bytes stay in the kernel, the peer is held back; resumed: they all come", async (t) => {
  const loopback = openLoopback(t, { socket: { receiveBuffer: 16_384 } });
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.pause();
  const bytes = Buffer.alloc(8 << 20, "0123456789abcdef");
  peer.write(bytes);
  assert.ok((await roundsWithin(loopback.totals, 200)) < 50);
  assert.equal(served.count("data"), 0);
  assert.ok(peer.socket.writableLength > 0, "the peer cannot get rid of everything");
  served.resume();
  await until("everything", () => served.chunks.reduce((sum, chunk) => sum + chunk.length, 0) === bytes.length);
  assert.ok(served.bytes.equals(bytes));
});

test("a paused peer that resets is reported at once, and the engine does not spin", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.pause();
  peer.write("unread");
  peer.reset();
  await until("the error", () => served.errno);
  assert.equal(served.count("data"), 0);
  assert.ok((await roundsWithin(loopback.totals, 200)) < 20, "no round without a reason");
  served.close();
  await until("the slot to be free", () => loopback.engine.open === 0);
});

test("a peer that closes while paused: no spinning; resumed: the data, then the end", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.pause();
  peer.write("before the end");
  peer.end();
  await until("FIN to be sent", () => peer.socket.writableFinished);
  assert.ok((await roundsWithin(loopback.totals, 200)) < 20);
  assert.deepEqual(served.events, ["open"]);
  served.resume();
  await until("the end", () => served.ended);
  assert.deepEqual(served.events, ["open", "data", "end"]);
  assert.equal(served.text, "before the end");
});

test("a paused connection still sends, finishes and closes", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.pause();
  peer.write("not read");
  served.send("sent");
  await peer.receives(4);
  served.close();
  await until("FIN", () => peer.ended);
  assert.equal(peer.error, undefined);
  peer.end();
  await until("the slot to be free", () => loopback.engine.open === 0);
});

test("paused by the handler of a data record: the rest of what arrived comes only after resume", async (t) => {
  const loopback = openLoopback(t);
  loopback.on = (recorder) => ({ onData: () => recorder.pause() });
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  const bytes = Buffer.alloc(1 << 20, "xyz");
  peer.write(bytes);
  for (let resumed = 1; served.bytes.length < bytes.length; resumed++) {
    await until("a share", () => served.count("data") === resumed);
    await delay(1);
    assert.equal(served.count("data"), resumed);
    served.resume();
  }
  assert.ok(served.bytes.equals(bytes));
  await until("the end", () => {
    served.resume();
    peer.end();
    return served.ended;
  });
});

test("pauses and resumes at random moments, in any order, lose nothing", async (t) => {
  const loopback = openLoopback(t);
  const step = fc.record({
    size: fc.integer({ min: 0, max: 200_000 }),
    toggles: fc.array(fc.constantFrom("pause", "resume", "flush"), { maxLength: 4 }),
  });
  let index = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 8 }), fc.constantFrom("end", "keep"), async (steps, last) => {
      const peer = await openPeer(t, loopback.port);
      const served = await loopback.nth(index++);
      const sent: Buffer[] = [];
      for (const { size, toggles } of steps) {
        const bytes = Buffer.alloc(size, sent.length + 65);
        sent.push(bytes);
        peer.write(bytes);
        for (const toggle of toggles) {
          if (toggle === "flush") loopback.engine.flush();
          else served[toggle]();
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (last === "end") peer.end();
      served.resume();
      const all = Buffer.concat(sent);
      await until("everything", () => served.bytes.length === all.length && (last === "keep" || served.ended));
      assert.ok(served.bytes.equals(all));
      served.reset();
    }),
    { numRuns: 40 },
  );
});
