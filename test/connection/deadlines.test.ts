/** Deadlines, by the manual clock. Each fires in its time and not before, has its own reason, and can be off. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Timeouts } from "#src/base/settings.js";
import type { Codec } from "#src/codec/codec.js";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import { raw } from "#src/codec/raw.js";
import { type TestConnection, testConnection } from "#src/connection/harness.js";
import { type Concurrency, defineService } from "#src/service/define.js";

const OFF: Timeouts = {
  ...{ firstByte: "off", frame: "off", idle: "off", writeStall: "off" },
  ...{ age: "off", ageJitter: "off", heartbeat: "off", request: "off", proxyHeader: "off", handshake: "off" },
};
/** The wheel looks every 50 ms. */
const TICK = 50;
const LONG = 1_000_000;

function echo(timeouts: Partial<Timeouts>, limits = {}): TestConnection<undefined, string | Uint8Array> {
  const service = defineService({ codec: line(), onMessage: (text) => text });
  return testConnection(service, { timeouts: { ...OFF, ...timeouts }, limits });
}

/** Moves the clock in small steps; returns after how long the connection was closed. */
function closedAfter(harness: TestConnection<unknown, never>, atMost: number, step = 10): number | undefined {
  for (let passed = step; passed <= atMost; passed += step) {
    harness.tick(step);
    if (harness.closed) return passed;
  }
  return undefined;
}

function assertAbout(actual: number | undefined, expected: number): void {
  assert.ok(actual !== undefined && actual >= expected && actual <= expected + 2 * TICK, `closed after ${actual} ms`);
}

test("first byte: a silent peer is closed; one byte in time is enough", () => {
  const silent = echo({ firstByte: 3_000 });
  assertAbout(closedAfter(silent, 10_000), 3_000);
  assert.equal(silent.closed, "first-byte-timeout");
  const talking = echo({ firstByte: 3_000 });
  talking.tick(2_900);
  talking.push("x");
  assert.equal(closedAfter(talking, 100_000, 100), undefined);
});

test("frame: from its first byte to its last, and dribbling does not extend it", () => {
  const dribbling = echo({ frame: 10_000, firstByte: 3_000 });
  dribbling.tick(1_000);
  for (let passed = 0; passed < 9_900; passed += 100) {
    dribbling.push("x");
    dribbling.tick(100);
    assert.equal(dribbling.closed, undefined);
  }
  assertAbout((closedAfter(dribbling, 1_000) ?? 0) + 9_900, 10_000);
  assert.equal(dribbling.closed, "frame-timeout");
});

test("frame: each frame has its own time, also when one ends and the next begins in one piece", () => {
  const harness = echo({ frame: 1_000 });
  for (let i = 0; i < 20; i++) {
    harness.tick(900);
    harness.push("end\nbegin");
    assert.equal(harness.closed, undefined);
  }
  assertAbout(closedAfter(harness, 5_000), 1_000);
  assert.equal(harness.closed, "frame-timeout");
});

test("frame: between frames its clock does not run", () => {
  const harness = echo({ frame: 1_000 });
  harness.push("whole\n");
  assert.equal(closedAfter(harness, 60_000, 100), undefined);
});

test("frame: while the service itself holds reads back, the peer is not blamed for an unfinished frame", () => {
  const harness = echo({ frame: 1_000 });
  harness.push("unfin");
  harness.connection.pauseReads();
  assert.equal(closedAfter(harness, 5_000, 100), undefined, String(harness.closed));
  harness.connection.resumeReads();
  assertAbout(closedAfter(harness, 5_000), 1_000);
  assert.equal(harness.closed, "frame-timeout");
});

test("frame: an oversized line that is being discarded has to end in time too", () => {
  const service = defineService({
    codec: line({ onOversize: "discard" }),
    limits: { frame: 10 },
    onMessage: (text) => text,
  });
  const harness = testConnection(service, { timeouts: { ...OFF, frame: 1_000 } });
  let passed = 0;
  for (; passed < 10_000 && !harness.closed; passed += 50) {
    harness.push("xxxxx");
    harness.tick(50);
  }
  assert.equal(harness.closed, "frame-timeout");
});

test("frame: while output backs up and reads are held for it, the peer is not blamed for an unfinished frame", () => {
  const harness = echo({ frame: 1_000 }, { highWater: 1_000, lowWater: 500 });
  harness.push("unfin");
  harness.stallWrites();
  harness.connection.send("x".repeat(2_000));
  harness.push("i");
  assert.equal(harness.readsPaused, true);
  assert.equal(closedAfter(harness, 5_000, 100), undefined, String(harness.closed));
  harness.resumeWrites();
  assertAbout(closedAfter(harness, 5_000), 1_000);
});

test("frame: a codec's mode may outlast a message: between messages nothing is owed", () => {
  const plain = raw();
  const codec: Codec<Buffer, string | Uint8Array> = {
    ...{ name: "greeted", borrowed: false, fault: "protocol-error" as const },
    get message() {
      return plain.message;
    },
    decode(bytes, from, to, cursor, max) {
      // The first message is a greeting; from then on the connection is in another mode for good.
      cursor.mode = 1;
      return plain.decode(bytes, from, to, cursor, max);
    },
    sizeOf: (message) => plain.sizeOf(message),
    encodeInto: (message, target, at, max) => plain.encodeInto(message, target, at, max),
  };
  const harness = testConnection(defineService({ codec, onMessage: (bytes) => bytes }), {
    timeouts: { ...OFF, frame: 1_000 },
  });
  harness.push("hello");
  assert.equal(closedAfter(harness, 60_000, 100), undefined, String(harness.closed));
});

test("frame: waiting behind a handler in flight does not count", async () => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    onMessage: (text): Promise<string> =>
      new Promise((resolve) => {
        release = () => resolve(text);
      }),
  });
  const harness = testConnection(service, { timeouts: { ...OFF, frame: 1_000 } });
  harness.push("slow\nunfin");
  assert.equal(closedAfter(harness, 10_000, 100), undefined);
  release?.();
  await harness.settle();
  assert.equal(harness.closed, undefined);
  assertAbout(closedAfter(harness, 5_000), 1_000);
});

test("idle: with no byte either way; bytes in and bytes out both count", () => {
  const silent = echo({ idle: 5_000 });
  assertAbout(closedAfter(silent, 20_000), 5_000);
  assert.equal(silent.closed, "idle-timeout");
  const receiving = echo({ idle: 5_000 });
  const sending = echo({ idle: 5_000 });
  for (let i = 0; i < 10; i++) {
    receiving.tick(4_900);
    sending.tick(4_900);
    receiving.push("x");
    sending.connection.send("x");
  }
  assert.deepEqual([receiving.closed, sending.closed], [undefined, undefined]);
  assertAbout(closedAfter(receiving, 20_000), 5_000);
  assertAbout(closedAfter(sending, 20_000), 5_000);
});

test("idle: a handler in flight keeps the connection, and the time begins when it has ended", async () => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    onMessage: (): Promise<undefined> =>
      new Promise((resolve) => {
        release = () => resolve(undefined);
      }),
  });
  const harness = testConnection(service, { timeouts: { ...OFF, idle: 5_000 } });
  harness.push("job\n");
  assert.equal(closedAfter(harness, 29_900, 100), undefined);
  release?.();
  await harness.settle();
  assertAbout(closedAfter(harness, 20_000), 5_000);
  assert.equal(harness.closed, "idle-timeout");
});

test("write stall: no progress with bytes unsent; progress starts it anew", () => {
  const harness = echo({ writeStall: 2_000, idle: 60_000, firstByte: 3_000 });
  harness.tick(1_000);
  harness.stallWrites();
  harness.push("answer me\n");
  assertAbout(closedAfter(harness, 20_000), 2_000);
  assert.equal(harness.closed, "write-stall");
  const slow = echo({ writeStall: 2_000 });
  for (let i = 0; i < 10; i++) {
    slow.stallWrites();
    slow.connection.send("x");
    slow.tick(1_900);
    slow.resumeWrites();
    slow.tick(1_900);
  }
  assert.equal(slow.closed, undefined);
});

test("write stall: nothing unsent, nothing stalls, however long ago the last byte left", () => {
  const harness = echo({ writeStall: 1_000 });
  harness.connection.send("x");
  harness.tick(LONG);
  harness.stallWrites();
  harness.connection.send("y");
  assertAbout(closedAfter(harness, 5_000), 1_000);
  assert.equal(harness.closed, "write-stall");
});

for (const off of ["firstByte", "frame", "idle", "writeStall"] as const) {
  test(`${off}: off is off`, () => {
    const all = { firstByte: LONG * 10, frame: LONG * 10, idle: LONG * 10, writeStall: LONG * 10 };
    const harness = echo({ ...all, [off]: "off" });
    if (off === "frame") harness.push("unfin");
    if (off === "writeStall") {
      harness.stallWrites();
      harness.push("x\n");
    }
    for (let i = 0; i < 20; i++) harness.tick(LONG / 4);
    assert.equal(harness.closed, undefined);
  });
}

test("all off: a connection that does nothing lives on, and one that begins a frame late", () => {
  const harness = echo({});
  harness.push("unfin");
  harness.stallWrites();
  harness.connection.send("x");
  harness.tick(LONG);
  assert.equal(harness.closed, undefined);
});

test("the first deadline that falls due gives the reason", () => {
  const harness = testConnection(defineService({ codec: frame(), onMessage: () => {} }), {
    timeouts: { firstByte: 3_000, frame: 2_000, idle: 1_500, writeStall: 4_000, request: "off" },
  });
  harness.push(Buffer.of(0));
  harness.tick(1_400);
  harness.push(Buffer.of(0));
  closedAfter(harness, 10_000);
  assert.equal(harness.closed, "frame-timeout");
});

test("after a long standstill of the clock every deadline is seen", () => {
  for (const concurrency of ["serial", "ordered"] as Concurrency[]) {
    const service = defineService({ codec: line(), concurrency, onMessage: (text) => text });
    const harness = testConnection(service, { timeouts: { ...OFF, idle: 60_000 } });
    harness.tick(LONG);
    assert.equal(harness.closed, "idle-timeout");
  }
});

test("the peer is not blamed while it is held back: neither for a frame nor for silence", () => {
  const service = defineService({ codec: line(), onMessage: () => {}, timeouts: { idle: "60s", frame: "10s" } });
  const held = testConnection(service, { limits: { highWater: 64, lowWater: 32 } });
  held.push("half a line");
  held.stallWrites();
  assert.equal(held.connection.send("x".repeat(100)), "slow");
  held.tick(9_000);
  held.resumeWrites();
  held.tick(9_000);
  assert.equal(held.closed, undefined, "the clock of the frame begins anew");
  held.tick(2_000);
  assert.equal(held.closed, "frame-timeout");

  const paused = testConnection(service);
  paused.push("a\n");
  paused.connection.pauseReads();
  for (let i = 0; i < 10; i++) paused.tick(30_000);
  assert.equal(paused.closed, undefined);
  paused.connection.resumeReads();
  paused.tick(59_000);
  assert.equal(paused.closed, undefined, "the time of silence begins when it may speak again");
  paused.tick(2_000);
  assert.equal(paused.closed, "idle-timeout");
});

test("frame: what has arrived of a large one earns it time at the least rate; dribbling earns next to nothing", () => {
  const limits = { minRate: 1_000 };
  const uploading = echo({ frame: 1_000 }, limits);
  // 1,050 bytes a second: each second earns a little more than a second.
  for (let passed = 0; passed < 60_000; passed += 100) {
    uploading.push("x".repeat(105));
    uploading.tick(100);
    assert.equal(uploading.closed, undefined, `after ${passed} ms`);
  }
  const tooSlow = echo({ frame: 1_000 }, limits);
  let after = 0;
  for (; !tooSlow.closed && after < 60_000; after += 100) {
    tooSlow.push("x".repeat(50));
    tooSlow.tick(100);
  }
  assert.equal(tooSlow.closed, "frame-timeout");
  assertAbout(after, 2_000); // 50 bytes every 100 ms: the second, and half of what passes.
  const dribbling = echo({ frame: 1_000 }, limits);
  for (after = 0; !dribbling.closed && after < 60_000; after += 100) {
    dribbling.push("x");
    dribbling.tick(100);
  }
  assertAbout(after, 1_010);
  const strict = echo({ frame: 1_000 }, { minRate: "off" });
  strict.push("x".repeat(100_000));
  assertAbout(closedAfter(strict, 5_000), 1_000);
});

test("frame: bytes of the frame before earn the next one nothing", () => {
  const harness = echo({ frame: 1_000 }, { minRate: 1_000 });
  harness.push("x".repeat(5_000));
  harness.push("\nhalf");
  assertAbout(closedAfter(harness, 10_000), 1_004);
});

test("age: the service says goodbye, what is in flight is answered, and that is all", async () => {
  let answer: (() => void) | undefined;
  const ended: unknown[] = [];
  const service = defineService({
    codec: line(),
    onMessage: (text): Promise<string> =>
      new Promise((resolve) => {
        answer = () => resolve(text);
      }),
    onDraining: () => "goodbye",
    onClose: (_connection, reason) => void ended.push(reason),
  });
  const quiet = testConnection(service, { timeouts: { ...OFF, age: 5_000 } });
  assertAbout(closedAfter(quiet, 20_000), 5_000);
  assert.deepEqual([quiet.closed, quiet.sent().toString(), ended], ["max-age", "goodbye\n", ["max-age"]]);
  const busy = testConnection(service, { timeouts: { ...OFF, age: 5_000 } });
  busy.push("work\n");
  assert.equal(closedAfter(busy, 15_000, 100), undefined);
  answer?.();
  await busy.settle();
  assert.deepEqual([busy.closed, busy.sent().toString()], ["max-age", "goodbye\nwork\n"]);
});

test("age: what is never answered, and a frame that never ends, have as long as a drain", () => {
  const service = defineService({ codec: line(), onMessage: () => new Promise<string>(() => {}) });
  for (const bytes of ["work\n", "unfin"]) {
    const harness = testConnection(service, { timeouts: { ...OFF, age: 5_000 } });
    harness.push(bytes);
    assertAbout(closedAfter(harness, 60_000), 35_000);
    assert.equal(harness.closed, "max-age");
  }
});

test("age: traffic does not extend it, and jitter makes it shorter, each time by another part", () => {
  const lives = Array.from({ length: 200 }, () => {
    const harness = echo({ age: 10_000, ageJitter: 20 });
    for (let passed = 0; ; passed += 50) {
      if (harness.closed) return passed;
      harness.push("x\n");
      harness.tick(50);
    }
  });
  const [shortest, longest] = [Math.min(...lives), Math.max(...lives)];
  assert.ok(shortest >= 8_000 && shortest < 8_500, `${shortest}`);
  assert.ok(longest > 9_500 && longest <= 10_000 + 2 * TICK, `${longest}`);
  const first = lives.filter((life) => life < 9_000).length;
  assert.ok(first > 60 && first < 140, `${first} of 200 in the first half`);
});

test("age: drawn once, however often a connection moves", () => {
  let harness = echo({ age: 10_000, ageJitter: 100 });
  const same = harness;
  let life = 0;
  for (; !harness.closed && life < 30_000; life += 50) {
    harness = harness.moved();
    harness.tick(50);
    if (life % 1_000 === 0) harness.push("x\n");
  }
  assert.ok(same.connection.closed);
  assert.ok(life <= 10_000 + 2 * TICK, `${life}`);
  assert.equal(harness.closed, "max-age");
});

test("setTimeouts: this connection's own, at once, also when shorter, longer or off", () => {
  const harness = echo({ idle: 60_000 });
  harness.connection.setTimeouts({ idle: "1s" });
  assertAbout(closedAfter(harness, 5_000), 1_000);
  const longer = echo({ idle: 1_000, firstByte: 500 });
  longer.push("login\n");
  longer.connection.setTimeouts({ idle: "10s" });
  assertAbout(closedAfter(longer, 20_000), 10_000);
  const off = echo({ idle: 1_000 });
  off.connection.setTimeouts({ idle: "off" });
  assert.equal(closedAfter(off, 60_000, 100), undefined);
  off.connection.setTimeouts({ frame: "2s" });
  off.push("unfin");
  assertAbout(closedAfter(off, 5_000), 2_000);
  assert.equal(off.closed, "frame-timeout");
  const back = echo({ idle: 1_000 });
  back.connection.setTimeouts({ idle: "off", writeStall: "3s" });
  back.tick(60_000);
  back.connection.setTimeouts({ idle: undefined });
  assertAbout(closedAfter(back, 5_000) ?? 0, 50);
});

test("setTimeouts: write stall and age", () => {
  const stalled = echo({ writeStall: 10_000 });
  stalled.connection.setTimeouts({ writeStall: "1s" });
  stalled.stallWrites();
  stalled.connection.send("x");
  assertAbout(closedAfter(stalled, 20_000), 1_000);
  const old = echo({});
  old.tick(3_000);
  old.connection.setTimeouts({ age: "5s" });
  assertAbout(closedAfter(old, 20_000), 2_000);
  assert.equal(old.closed, "max-age");
});

test("setTimeouts: they move with the connection; the others stay the listener's", () => {
  const before = echo({ idle: 1_000, frame: 2_000 });
  before.push("login\n");
  before.connection.setTimeouts({ idle: "10s" });
  const after = before.moved().moved();
  assert.equal(closedAfter(after, 9_900), undefined);
  after.push("unfin");
  assertAbout(closedAfter(after, 5_000), 2_000);
});

test("setTimeouts: what is no timeout is refused, and then nothing has changed", () => {
  const harness = echo({ idle: 1_000 });
  const set = (timeouts: object) => () => harness.connection.setTimeouts(timeouts);
  assert.throws(
    set({ idle: "2s", writeStal: "2s" }),
    /setTimeouts: writeStal: unknown; allowed: firstByte, .*writeStall/,
  );
  assert.throws(set({ idle: 5 }), /setTimeouts: idle: 5 has no unit/);
  assert.throws(set({ idle: "0s" }), /write off to disable it/);
  assert.throws(set({ drain: "1s" }), /setTimeouts: drain: unknown/);
  assertAbout(closedAfter(harness, 5_000), 1_000);
  harness.connection.setTimeouts({ idle: "1s" });
});

test("a service may set them before anything has come, in onOpen", () => {
  const service = defineService({
    codec: line(),
    onOpen: (connection) => connection.setTimeouts({ firstByte: "1s" }),
    onMessage: () => {},
  });
  const harness = testConnection(service);
  assertAbout(closedAfter(harness, 5_000), 1_000);
  assert.equal(harness.closed, "first-byte-timeout");
});

test("idle falls due also when nothing looked after bytes that the peer took late, because writeStall is off", () => {
  const service = defineService({ codec: line(), onMessage: (text) => text });
  const harness = testConnection(service, {
    timeouts: { firstByte: "off", frame: "off", idle: 60_000, writeStall: "off" },
  });
  harness.push("hi\n");
  harness.stallWrites();
  harness.connection.send("x".repeat(100));
  for (let at = 0; at < 65_000; at += 50) harness.tick(50);
  assert.equal(harness.closed, undefined, "what it was sent waits for it");
  harness.resumeWrites();
  let at = 0;
  for (; at < 200_000 && !harness.closed; at += 50) harness.tick(50);
  assert.equal(harness.closed, "idle-timeout");
  assert.ok(at >= 60_000 && at <= 120_000, `${at}`);
});
