/** What the open loop is for: it sees a stall that a closed loop hides. */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import type { LoadOptions } from "#src/load/options.js";
import { faultOf, type LoadResult } from "#src/load/result.js";
import { load, startPeer } from "./peer.js";

const STALL_MS = 500;

/** Answers nothing for STALL_MS, 200 ms after the window has begun, then everything. */
async function againstStall(options: Partial<LoadOptions>): Promise<LoadResult> {
  const held: [Socket, Buffer][] = [];
  let stalled = false;
  const peer = await startPeer(64, (socket, message) => {
    if (stalled) held.push([socket, Buffer.from(message)]);
    else socket.write(message);
  });
  const stall = (): void => {
    stalled = true;
    setTimeout(() => {
      stalled = false;
      for (const [socket, message] of held) socket.write(message);
    }, STALL_MS);
  };
  const onEvent = (event: string): void => {
    if (event === "measuring") setTimeout(stall, 200);
  };
  const result = await load(peer.port, { connections: 10, durationMs: 1_000, ...options }, { onEvent });
  await peer.close();
  assert.equal(faultOf(result), undefined);
  return result;
}

test("a stall of half the window delays a third of what was due, or 10 of thousands of messages", async () => {
  const open = await againstStall({ mode: "open", messagesPerSecond: 1_000 });
  const closed = await againstStall({ mode: "closed" });
  const [openMs, closedMs] = [open.latencyMs, closed.latencyMs];
  assert(openMs && closedMs);
  assert(closedMs.p99 < 50, `closed loop, p99: ${closedMs.p99} ms`);
  assert(openMs.p90 > STALL_MS / 2, `open loop, p90: ${openMs.p90} ms`);
  assert(openMs.max >= STALL_MS - 50 && openMs.max < STALL_MS + 400, `open loop, max: ${openMs.max} ms`);
});

test("nothing is skipped: what fell due in the stall is sent after it", async () => {
  const result = await againstStall({ mode: "open", messagesPerSecond: 1_000 });
  assert(Math.abs(result.messages.sent - 1_000) < 100, `${result.messages.sent} sent`);
  assert.equal(result.messages.unsent, 0);
});

test("an idle connection is on time: the generator does not wait for a timer", async () => {
  const peer = await startPeer(64);
  const result = await load(peer.port, { mode: "open", messagesPerSecond: 200, durationMs: 500 });
  await peer.close();
  assert.equal(faultOf(result), undefined);
  assert(Math.abs(result.messages.received - 100) <= 5, `${result.messages.received} received`);
});

test("what a dead server leaves unsent and unanswered is counted, and its time is", async () => {
  const peer = await startPeer(64, (socket, message, index) => {
    if (index < 3) socket.write(message);
  });
  const result = await load(peer.port, { mode: "open", connections: 2, messagesPerSecond: 200, durationMs: 500 });
  await peer.close();
  assert.equal(result.messages.outstanding, 2);
  assert(result.messages.unsent > 80, `${result.messages.unsent} unsent`);
  assert(result.latencyMs && result.latencyMs.p50 > 100, `p50 ${result.latencyMs?.p50} ms`);
});
