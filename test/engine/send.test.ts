/** Sending: in order, byte for byte, however little the kernel takes at a time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { OUTPUT_BYTES, OUTPUT_RECORDS } from "#src/engine/layout.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { openLoopback, type Recorder } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const SENDS = WORKER_FIELDS.indexOf("sends");
const BYTES_SENT = WORKER_FIELDS.indexOf("bytesSent");
/** The kernel doubles it. Much less, and the peer's delayed ACKs set the pace. */
const TINY = { socket: { sendBuffer: 32_768 } };

function pattern(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0, state = seed; i < length; i++) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

test("a slow reader: the rest waits, is reported as blocked, and arrives complete", async (t) => {
  const loopback = openLoopback(t, TINY);
  const peer = await openPeer(t, loopback.port, { paused: true });
  const served = await loopback.nth(0);
  const message = pattern(1 << 20);
  served.send(message);
  await until("blocked", () => served.count("blocked") === 1);
  assert.ok(served.unsent > 0 && served.unsent < message.length);
  loopback.engine.notifyBelow(served.slot, served.generation, 1);
  loopback.engine.flush();
  assert.equal(served.count("writable"), 0);
  peer.socket.resume();
  await until("writable", () => served.count("writable"));
  assert.equal(served.unsent, 0);
  await peer.receives(message.length);
  assert.ok(peer.bytes.equals(message));
  assert.deepEqual(served.events, ["open", "blocked", "writable"]);
  assert.equal(loopback.totals[BYTES_SENT], message.length);
});

test("blocked is reported each time the kernel begins to refuse, not once per message", async (t) => {
  const loopback = openLoopback(t, TINY);
  const peer = await openPeer(t, loopback.port, { paused: true });
  const served = await loopback.nth(0);
  for (let turn = 1; turn <= 3; turn++) {
    peer.socket.pause();
    for (let i = 0; i < 4; i++) {
      served.send(Buffer.alloc(200_000));
      loopback.engine.flush();
    }
    await until("blocked", () => served.count("blocked") >= turn);
    assert.equal(served.count("blocked"), turn);
    peer.socket.resume();
    await until("everything to be sent", () => served.unsent === 0);
    await peer.receives(turn * 800_000);
  }
});

test("the mark: writable comes once, below it and not before", async (t) => {
  const loopback = openLoopback(t, TINY);
  const mark = 100_000;
  let unsentWhenWritable = -1;
  loopback.on = (recorder) => ({
    onWritable() {
      unsentWhenWritable = recorder.unsent;
    },
  });
  const peer = await openPeer(t, loopback.port, { paused: true });
  const served = await loopback.nth(0);
  served.send(Buffer.alloc(1 << 20));
  loopback.engine.notifyBelow(served.slot, served.generation, mark);
  peer.socket.resume();
  await until("writable", () => served.count("writable"));
  assert.ok(unsentWhenWritable < mark, `${unsentWhenWritable} unsent`);
  await peer.receives(1 << 20);
  served.send("x");
  await peer.receives((1 << 20) + 1);
  assert.equal(served.count("writable"), 1);
  // Asked for when already below: reported all the same.
  loopback.engine.notifyBelow(served.slot, served.generation, mark);
  await until("writable", () => served.count("writable") === 2);
});

test("any chunks through any path, with any reader, arrive in order and byte for byte", async (t) => {
  const loopback = openLoopback(t, TINY);
  const chunk = fc.record({
    size: fc.oneof(
      { weight: 6, arbitrary: fc.nat({ max: 200 }) },
      { weight: 3, arbitrary: fc.integer({ min: 1, max: 100_000 }) },
      { weight: 1, arbitrary: fc.constantFrom(OUTPUT_BYTES, OUTPUT_BYTES + 1) },
    ),
    coalesce: fc.boolean(),
    large: fc.boolean(),
    next: fc.constantFrom("nothing", "flush", "turn", "pause", "resume"),
  });
  let index = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(chunk, { minLength: 1, maxLength: 25 }), fc.integer(), async (chunks, seed) => {
      const peer = await openPeer(t, loopback.port, { paused: true });
      const served = await loopback.nth(index++);
      const sent: Buffer[] = [];
      for (const { size, coalesce, large, next } of chunks) {
        const bytes = pattern(size, seed + sent.length);
        sent.push(bytes);
        if (large && size > 0) loopback.engine.sendLarge(served.slot, served.generation, bytes);
        else served.send(bytes, coalesce);
        if (next === "flush") loopback.engine.flush();
        if (next === "turn") await new Promise((resolve) => setImmediate(resolve));
        if (next === "pause") peer.socket.pause();
        if (next === "resume") peer.socket.resume();
      }
      peer.socket.resume();
      const all = Buffer.concat(sent);
      served.close();
      await until("FIN", () => peer.ended);
      assert.ok(peer.bytes.equals(all), `${peer.length} of ${all.length} bytes`);
      peer.end();
    }),
    { numRuns: 40 },
  );
  await until("the slots to be free", () => loopback.engine.open === 0);
});

async function openMany(
  t: Parameters<typeof openPeer>[0],
  count: number,
): Promise<{ loopback: ReturnType<typeof openLoopback>; clients: Recorder[] }> {
  const loopback = openLoopback(t);
  const clients = Array.from({ length: count }, () => loopback.connect());
  await until("all to be open", () => loopback.accepted.length === count && clients.every((each) => each.opened));
  return { loopback, clients };
}

test("a broadcast interleaves the records of many connections: in order, one send for each", async (t) => {
  const { loopback, clients } = await openMany(t, 60);
  const before = loopback.totals[SENDS] as number;
  for (let message = 0; message < 20; message++) for (const served of loopback.accepted) served.send(`${message},`);
  loopback.engine.flush();
  assert.equal((loopback.totals[SENDS] as number) - before, loopback.accepted.length);
  const expected = Array.from({ length: 20 }, (_, message) => `${message},`).join("");
  await until("all to arrive", () => clients.every((each) => each.text.length === expected.length));
  for (const client of clients) assert.equal(client.text, expected);
});

test("not coalesced: one send for each message, still in order", async (t) => {
  const { loopback, clients } = await openMany(t, 3);
  const before = loopback.totals[SENDS] as number;
  for (let message = 0; message < 10; message++)
    for (const served of loopback.accepted) served.send(`${message},`, false);
  loopback.engine.flush();
  assert.equal((loopback.totals[SENDS] as number) - before, 30);
  await until("all to arrive", () => clients.every((each) => each.text === "0,1,2,3,4,5,6,7,8,9,"));
});

test("more parts of one connection than one system call joins keep their order", async (t) => {
  const { loopback, clients } = await openMany(t, 2);
  for (let message = 0; message < 500; message++) for (const served of loopback.accepted) served.send(`${message},`);
  const expected = Array.from({ length: 500 }, (_, message) => `${message},`).join("");
  await until("all to arrive", () => clients.every((each) => each.text.length === expected.length));
  for (const client of clients) assert.equal(client.text, expected);
});

test("the arena fills in the middle of a round: it is flushed there, and the order is kept", async (t) => {
  const loopback = openLoopback(t);
  const size = 100_000;
  const count = 30;
  loopback.on = (recorder) => ({
    onData() {
      if (recorder.count("data") > 1) return;
      for (let i = 0; i < count; i++) for (const each of loopback.accepted) each.send(Buffer.alloc(size, 65 + i));
    },
  });
  const peers = await Promise.all(Array.from({ length: 3 }, () => openPeer(t, loopback.port)));
  await loopback.nth(2);
  peers[0]?.write("go");
  const expected = Buffer.concat(Array.from({ length: count }, (_, i) => Buffer.alloc(size, 65 + i)));
  for (const peer of peers) {
    await peer.receives(expected.length);
    assert.ok(peer.bytes.equals(expected));
  }
});

test("more records than the list holds are carried out in order", async (t) => {
  const { loopback, clients } = await openMany(t, 2);
  const count = OUTPUT_RECORDS + 500;
  for (let i = 0; i < count; i++) loopback.accepted[i % 2]?.send(String.fromCharCode(65 + (i % 26)));
  loopback.accepted[0]?.pause();
  await until("all to arrive", () => clients.every((each) => each.text.length === count / 2));
  for (const [parity, client] of clients.entries()) {
    const expected = Array.from({ length: count / 2 }, (_, i) => String.fromCharCode(65 + ((2 * i + parity) % 26)));
    assert.equal(client.text, expected.join(""));
  }
});

test("small and large messages of one connection keep their order", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  const large = pattern(OUTPUT_BYTES + 1);
  served.send("before");
  served.send(large);
  served.send("after");
  const expected = Buffer.concat([Buffer.from("before"), large, Buffer.from("after")]);
  await peer.receives(expected.length);
  assert.ok(peer.bytes.equals(expected));
});

test("sending after FIN, or to a connection that failed, ends in one error and no count of unsent bytes", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.finish();
  served.send("late");
  loopback.engine.flush();
  served.send("later");
  await until("the error", () => served.count("error"));
  served.send("latest");
  loopback.engine.sendLarge(served.slot, served.generation, Buffer.alloc(100));
  loopback.engine.flush();
  assert.equal(served.unsent, 0);
  assert.equal(served.count("error"), 1);
  served.close();
  await until("the peer to see the end", () => peer.ended || peer.closed);
  await until("the slot to be free", () => loopback.engine.open === 0);
});
