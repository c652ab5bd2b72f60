/** Output that backs up, and input that is held back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { line } from "#src/codec/line.js";
import { raw } from "#src/codec/raw.js";
import { testConnection } from "#src/connection/harness.js";
import { defineService } from "#src/service/define.js";

const LIMITS = { highWater: 1_000, lowWater: 500, buffered: 3_000, frame: 2_900 };
const silent = defineService({ codec: line(), onMessage: () => {} });
const echo = defineService({ codec: line(), onMessage: (text) => text });
const isClosed = (error: unknown): boolean => error instanceof HeadraceError && error.code === "connection-closed";

test("send says ok, slow, refused, closed; refused takes nothing of the message", () => {
  const harness = testConnection(silent, { limits: LIMITS });
  harness.stallWrites();
  assert.equal(harness.connection.send("a".repeat(999)), "ok");
  assert.equal(harness.connection.send("b".repeat(999)), "slow");
  assert.equal(harness.connection.send("c".repeat(999)), "slow");
  assert.equal(harness.connection.bufferedBytes, 3_000);
  assert.equal(harness.connection.send("d"), "refused");
  assert.equal(harness.connection.bufferedBytes, 3_000);
  harness.resumeWrites();
  assert.equal(harness.connection.bufferedBytes, 0);
  assert.equal(harness.sent().toString(), `${"a".repeat(999)}\n${"b".repeat(999)}\n${"c".repeat(999)}\n`);
  assert.equal(harness.connection.send("e"), "ok");
  harness.connection.close();
  assert.equal(harness.connection.send("f"), "closed");
  assert.equal(harness.sent().toString(), "e\n");
});

test("a message past the high-water mark that the kernel takes at once is ok", () => {
  const harness = testConnection(silent, { limits: LIMITS });
  assert.equal(harness.connection.send("x".repeat(2_000)), "ok");
});

test("a reply that would pass the cap ends the connection as a slow consumer", () => {
  const harness = testConnection(echo, { limits: { ...LIMITS, highWater: 2_990 } });
  harness.stallWrites();
  harness.push(`${"x".repeat(2_000)}\n`);
  harness.push(`${"y".repeat(2_000)}\n`);
  assert.equal(harness.closed, "slow-consumer");
});

test("drained: at once when nothing backs up, below the low-water mark when it does, rejected at the end", async () => {
  const harness = testConnection(silent, { limits: LIMITS });
  await harness.connection.drained();
  harness.stallWrites();
  harness.connection.send("x".repeat(2_000));
  let drained = 0;
  const waiting = [1, 2].map(() => harness.connection.drained().then(() => (drained += 1)));
  await harness.settle();
  assert.equal(drained, 0);
  harness.resumeWrites();
  await Promise.all(waiting);
  assert.equal(drained, 2);

  harness.stallWrites();
  harness.connection.send("x".repeat(2_000));
  const late = harness.connection.drained();
  harness.peerReset();
  await assert.rejects(late, (error) => isClosed(error) && /peer-reset/.test((error as Error).message));
  await assert.rejects(harness.connection.drained(), isClosed);
});

test("drained after the end names the reason of the end", async () => {
  const harness = testConnection(silent);
  harness.peerReset();
  await assert.rejects(harness.connection.drained(), /peer-reset/);
});

test("onWritable comes after slow, once, with room again; it may send and back up again", () => {
  const seen: number[] = [];
  const service = defineService({
    codec: line(),
    onMessage: () => {},
    onWritable(connection) {
      seen.push(connection.bufferedBytes);
      if (seen.length === 1) connection.send("y".repeat(2_000));
    },
  });
  const harness = testConnection(service, { limits: LIMITS });
  harness.connection.send("x");
  assert.deepEqual(seen, []);
  harness.stallWrites();
  harness.connection.send("x".repeat(2_000));
  harness.resumeWrites();
  assert.deepEqual(seen, [0]);
  harness.resumeWrites();
  assert.equal(seen.length, 1, "the second message left at once");
});

test("while replies back up, requests are not handled and reads pause; then all are, in order", () => {
  const handled: string[] = [];
  const service = defineService({
    codec: line(),
    onMessage(text) {
      handled.push(text);
      return text.repeat(600);
    },
  });
  const harness = testConnection(service, { limits: LIMITS });
  harness.stallWrites();
  harness.push("a\nb\nc\nd\n");
  assert.deepEqual(handled, ["a", "b"]);
  harness.push("e\n");
  assert.equal(harness.readsPaused, true);
  assert.deepEqual(handled, ["a", "b"]);
  harness.resumeWrites();
  assert.deepEqual(handled, ["a", "b", "c", "d", "e"]);
  assert.equal(harness.readsPaused, false);
  assert.equal(harness.sent().length, 5 * 601);
});

test("pauseReads: what was received waits, and comes after resumeReads in order", () => {
  const handled: string[] = [];
  const service = defineService({
    codec: line(),
    onMessage(text, { connection }) {
      handled.push(text);
      if (text === "stop") connection.pauseReads();
    },
  });
  const harness = testConnection(service);
  harness.push("1\nstop\n2\n3");
  harness.push("\n4\n");
  assert.deepEqual(handled, ["1", "stop"]);
  assert.equal(harness.readsPaused, true);
  harness.connection.resumeReads();
  harness.push("5\n");
  assert.deepEqual(handled, ["1", "stop", "2", "3", "4", "5"]);
  assert.equal(harness.readsPaused, false);
});

test("pauseReads and resumeReads inside one handler change nothing", () => {
  const handled: string[] = [];
  const service = defineService({
    codec: line(),
    onMessage(text, { connection }) {
      handled.push(text);
      connection.pauseReads();
      connection.resumeReads();
    },
  });
  const harness = testConnection(service);
  harness.push("1\n2\n3\n");
  assert.deepEqual(handled, ["1", "2", "3"]);
});

test("the peer's end waits for what is paused before it: every request is handled, then the connection ends", () => {
  const handled: string[] = [];
  const service = defineService({
    codec: line(),
    onMessage(text, { connection }) {
      handled.push(text);
      connection.pauseReads();
    },
  });
  const harness = testConnection(service);
  harness.push("1\n2\n3\n");
  harness.end();
  for (const count of [1, 2, 3]) {
    assert.equal(handled.length, count);
    assert.equal(harness.closed, undefined);
    harness.connection.resumeReads();
  }
  assert.equal(harness.closed, "peer-closed");
});

test("the peer's end comes after bytes that still wait in the kernel", async () => {
  const resolvers: (() => void)[] = [];
  const service = defineService({
    codec: line(),
    onMessage: (text): Promise<string> => new Promise((resolve) => resolvers.push(() => resolve(text))),
  });
  const harness = testConnection(service);
  harness.push("a\n");
  harness.push("b\n");
  assert.equal(harness.readsPaused, true);
  harness.push("c\n");
  harness.end();
  for (let i = 0; i < 3; i++) {
    resolvers[i]?.();
    await harness.settle();
  }
  assert.equal(harness.sent().toString(), "a\nb\nc\n");
  assert.equal(harness.closed, "peer-closed");
});

test("input is bounded: a blocked connection takes one arrival and then stops reading", () => {
  const service = defineService({
    codec: raw(),
    onMessage(_bytes, { connection }) {
      connection.pauseReads();
    },
  });
  const harness = testConnection(service);
  harness.push("1");
  assert.equal(harness.readsPaused, false);
  harness.push("2");
  assert.equal(harness.readsPaused, true);
});
