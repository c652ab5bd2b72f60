/** Connections that fill the input arena keep nobody waiting for ever, and a closing one is given its time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { INPUT_BYTES } from "#src/engine/layout.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const SHARE = 64 * 1024;
const ROUNDS = WORKER_FIELDS.indexOf("rounds");
/** How slow the slow reader is. */
const PEER_PAUSE_MS = 50;

test("as many floods as fill the arena in each round: one more connection is heard all the same", async (t) => {
  const loopback = openLoopback(t);
  const floods = INPUT_BYTES / SHARE;
  const chunk = Buffer.alloc(1 << 20, "x");
  for (let i = 0; i < floods; i++) {
    const peer = await openPeer(t, loopback.port);
    const served = await loopback.nth(i);
    // Reading is held up until everybody has more waiting than a few rounds can take.
    served.pause();
    for (let j = 0; j < 4; j++) peer.write(chunk);
  }
  const quiet = await openPeer(t, loopback.port);
  const heard = await loopback.nth(floods);
  loopback.engine.flush();
  let roundsBefore = Number.POSITIVE_INFINITY;
  heard.on.onData = () => {
    roundsBefore = Math.min(roundsBefore, loopback.totals[ROUNDS] as number);
  };
  quiet.write("me");
  for (const flood of loopback.accepted.slice(0, floods)) flood.resume();
  const started = loopback.totals[ROUNDS] as number;
  await until("the quiet one to be heard", () => roundsBefore !== Number.POSITIVE_INFINITY);
  assert.ok(roundsBefore - started < 50, `${roundsBefore - started} rounds`);
});

test("closing: a slow reader that makes progress gets everything, one that makes none is reset", async (t) => {
  const loopback = openLoopback(t, { socket: { sendBuffer: 32_768 } });
  const message = Buffer.alloc(2 << 20, "y");
  const flushMs = 300;

  const slow = await openPeer(t, loopback.port, { paused: true });
  const served = await loopback.nth(0);
  served.send(message);
  served.close(flushMs);
  const started = performance.now();
  while (slow.length < message.length && slow.error === undefined) {
    // A little at a time: in all far longer than the deadline, but never so long without progress.
    const before = slow.length;
    // One chunk, however much has come: left to flow, a fast machine has it all in a few turns.
    slow.socket.once("data", () => slow.socket.pause());
    slow.socket.resume();
    await until("some bytes", () => slow.length > before || slow.error !== undefined);
    if (performance.now() - started < 3 * flushMs) await new Promise((resolve) => setTimeout(resolve, PEER_PAUSE_MS));
  }
  assert.equal(slow.error, undefined);
  assert.equal(slow.length, message.length);
  assert.ok(performance.now() - started > 2 * flushMs);

  slow.socket.resume();
  slow.end();
  await until("the first one to be gone", () => loopback.engine.open === 0);

  const deaf = await openPeer(t, loopback.port, { paused: true });
  const unheard = await loopback.nth(1);
  unheard.send(message);
  unheard.close(flushMs);
  await until("the slot to be free", () => loopback.engine.open === 0);
  deaf.socket.resume();
  // libuv may report a reset behind unread bytes as an end (uv__stream_io, POLLHUP after a partial read).
  await until("the reset", () => deaf.error !== undefined || deaf.ended);
  assert.ok(deaf.length < message.length);
});
