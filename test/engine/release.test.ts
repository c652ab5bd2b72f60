/** A connection that moves: given up by one engine, taken over by another, and nothing of it is lost or told twice. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { ReleasedSlot } from "#src/engine/engine.js";
import { ENTRY } from "#src/engine/layout.js";
import { addon } from "#src/os/addon.js";
import { errnoName } from "#src/os/errno.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { type Loopback, openEngine, openLoopback, Recorder } from "../support/loopback.js";
import { openPeer, type Peer } from "../support/peer.js";
import { until } from "../support/until.js";

interface Served {
  readonly loopback: Loopback;
  readonly peer: Peer;
  readonly served: Recorder;
}

async function serve(t: TestContext, options: { sendBuffer?: number; paused?: boolean } = {}): Promise<Served> {
  const { sendBuffer } = options;
  const loopback = openLoopback(t, sendBuffer === undefined ? {} : { socket: { sendBuffer } });
  const peer = await openPeer(t, loopback.port, { paused: options.paused ?? false });
  return { loopback, peer, served: await loopback.nth(0) };
}

/** Takes it over in an engine of its own. */
function adopt(t: TestContext, released: ReleasedSlot, on: Partial<Recorder["on"]> = {}): Recorder {
  const heir = new Recorder(openEngine(t), on);
  heir.slot = heir.engine.adopt(0, released.fd, heir, { entry: ENTRY.notCounted, counters: released });
  heir.generation = heir.engine.generation(heir.slot);
  return heir;
}

const release = (served: Recorder): ReleasedSlot => served.engine.release(served.slot, served.generation);

test("release and adopt: the connection goes on elsewhere, with what was not sent", async (t) => {
  const before = openDescriptors();
  const loopback = openLoopback(t, { socket: { sendBuffer: 32_768 } });
  const { engine } = loopback;
  const peer = await openPeer(t, loopback.port, { paused: true });
  const served = await loopback.nth(0);
  const message = Buffer.alloc(2 << 20);
  for (let i = 0; i < message.length; i += 4) message.writeUInt32LE(i, i);
  served.send(message);
  const { fd, unsent } = engine.release(served.slot, served.generation);
  assert.ok(unsent.length > 0 && unsent.length < message.length);
  assert.equal(engine.open, 0);
  assert.throws(() => engine.release(served.slot, served.generation), { code: "system" });

  const heir = new Recorder(engine);
  heir.slot = engine.adopt(3, fd, heir, { entry: ENTRY.notCounted });
  heir.generation = engine.generation(heir.slot);
  heir.send(unsent);
  heir.send("tail");
  peer.socket.resume();
  await peer.receives(message.length + 4);
  assert.ok(peer.bytes.equals(Buffer.concat([message, Buffer.from("tail")])));
  assert.equal(engine.peer(heir.slot, heir.generation).port, peer.socket.localPort);
  peer.write("to the heir");
  await until("bytes", () => heir.text === "to the heir");
  assert.equal(served.text, "");
  peer.socket.destroy();
  await until("the end", () => heir.ended || heir.errno);
  heir.close();
  await until("the slot to be free", () => engine.open === 0);
  engine.shutdown();
  addon().fdClose(loopback.fd);
  await sameDescriptors(before);
});

test("release: the engine no longer hears of the descriptor, though it stays open", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  const { fd } = loopback.engine.release(served.slot, served.generation);
  t.after(() => addon().fdClose(fd));
  const rounds = WORKER_FIELDS.indexOf("rounds");
  const before = loopback.totals[rounds];
  for (let i = 0; i < 3; i++) {
    peer.write("x");
    await pause(10);
  }
  assert.equal(loopback.totals[rounds], before);
  assert.deepEqual(served.events, ["open"]);
});

test("adopt: bytes and a FIN that were there before are delivered", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.pause();
  peer.write("waiting");
  peer.end();
  await until("FIN to be sent", () => peer.socket.writableFinished);
  const { fd } = loopback.engine.release(served.slot, served.generation);
  const heir = new Recorder(loopback.engine);
  heir.slot = loopback.engine.adopt(0, fd, heir, { entry: ENTRY.notCounted });
  heir.generation = loopback.engine.generation(heir.slot);
  await until("the end", () => heir.ended);
  assert.deepEqual(heir.events, ["data", "end"]);
  assert.equal(served.text + heir.text, "waiting");
});

test("the end that was told already is told again to the heir, without the bytes before it", async (t) => {
  const { peer, served } = await serve(t);
  peer.write("read before");
  peer.end();
  await until("the end", () => served.ended);
  const heir = adopt(t, release(served));
  await until("the end again", () => heir.ended);
  assert.deepEqual(heir.events, ["end"]);
  heir.send("still heard");
  heir.close();
  await until("FIN", () => peer.closed);
  assert.equal(peer.text, "still heard");
  assert.equal(peer.error, undefined);
});

test("bytes that were in the kernel unread come to the heir, and to it alone", async (t) => {
  const { peer, served } = await serve(t);
  peer.write("first ");
  await until("the first", () => served.text === "first ");
  served.pause();
  served.engine.flush();
  peer.write("second");
  await until("the second in the kernel", () => served.engine.unread(served.slot, served.generation) === 6);
  const heir = adopt(t, release(served));
  await until("the second", () => heir.text === "second");
  assert.equal(served.text, "first ");
});

test("a reset while nobody watches is told to the heir", async (t) => {
  const { peer, served } = await serve(t);
  const released = release(served);
  peer.reset();
  await until("the reset", () => peer.closed);
  const heir = adopt(t, released);
  await until("the error", () => heir.errno);
  assert.equal(errnoName(heir.errno), "ECONNRESET");
  assert.deepEqual(heir.events, ["error"]);
  heir.close();
});

test("FIN sent before the move: the heir receives on, finishes again in vain and closes politely", async (t) => {
  const { peer, served } = await serve(t);
  served.finish();
  await until("FIN", () => peer.ended);
  const heir = adopt(t, release(served));
  heir.finish();
  peer.write("after FIN");
  await until("bytes", () => heir.text === "after FIN");
  heir.close();
  peer.end();
  await until("the slot to be free", () => heir.engine.open === 0);
  assert.equal(peer.error, undefined);
});

test("a pause and a mark stay behind; counters and clocks move along", async (t) => {
  const { loopback, peer, served } = await serve(t);
  peer.write("12345");
  await until("bytes", () => served.text === "12345");
  served.send("123");
  await peer.receives(3);
  served.pause();
  served.engine.notifyBelow(served.slot, served.generation, 1);
  const released = release(served);
  assert.equal(served.count("writable"), 0);
  assert.deepEqual([released.received, released.sent], [5, 3]);
  assert.ok(released.receivedAt > 0 && released.receivedAt <= loopback.engine.now);
  // The clock of a move must not begin anew: an idle connection stays idle.
  await until("a later clock", () => loopback.engine.now > released.progressAt + 50);
  const heir = adopt(t, released);
  const counters = (): number[] => [...heir.engine.counters.subarray(heir.slot * 4, heir.slot * 4 + 4)];
  assert.deepEqual(counters(), [5, 3, released.receivedAt, released.progressAt]);
  peer.write("6789");
  await until("bytes", () => heir.text === "6789");
  heir.send("45");
  await peer.receives(5);
  assert.deepEqual(counters().slice(0, 2), [9, 5]);
  assert.deepEqual(heir.events, ["data"]);
});

test("without counters given, a connection begins now", async (t) => {
  const { peer, served } = await serve(t);
  peer.write("12345");
  await until("bytes", () => served.text === "12345");
  const { fd } = release(served);
  const heir = new Recorder(openEngine(t));
  heir.slot = heir.engine.adopt(0, fd, heir, { entry: ENTRY.notCounted });
  const [received, sent, receivedAt] = heir.engine.counters.subarray(heir.slot * 4);
  assert.deepEqual([received, sent], [0, 0]);
  assert.ok(Math.abs((receivedAt as number) - heir.engine.now) <= 4);
});

test("there and back many times, both sides talking: every byte once and in order", async (t) => {
  const { peer, served } = await serve(t, { sendBuffer: 16_384 });
  const homes = [served.engine, openEngine(t)];
  const toPeer = Buffer.alloc(1 << 20);
  const fromPeer = Buffer.alloc(1 << 20);
  for (let i = 0; i < toPeer.length; i += 4) {
    toPeer.writeUInt32LE(i, i);
    fromPeer.writeUInt32BE(i, i);
  }
  const received: Buffer[] = [];
  let holder = served;
  const moves = 64;
  const part = toPeer.length / moves;
  for (let move = 0; move < moves; move++) {
    peer.write(fromPeer.subarray(move * part, (move + 1) * part));
    holder.send(toPeer.subarray(move * part, (move + 1) * part));
    if (move % 3 === 0) await pause(1);
    const released = release(holder);
    received.push(holder.bytes);
    const next = new Recorder(homes[(move + 1) % 2] as never);
    next.slot = next.engine.adopt(move % 64, released.fd, next, { entry: ENTRY.notCounted, counters: released });
    next.generation = next.engine.generation(next.slot);
    if (released.unsent.length > 0) next.send(released.unsent);
    holder = next;
  }
  const total = (): number => received.reduce((sum, { length }) => sum + length, 0) + holder.bytes.length;
  await until("all bytes", () => total() === fromPeer.length);
  await peer.receives(toPeer.length);
  assert.ok(Buffer.concat([...received, holder.bytes]).equals(fromPeer));
  assert.ok(peer.bytes.equals(toPeer));
  const [countedIn, countedOut] = holder.engine.counters.subarray(holder.slot * 4);
  assert.deepEqual([countedIn, countedOut], [fromPeer.length, toPeer.length]);
});

test("what cannot be adopted stays the caller's", async (t) => {
  const before = openDescriptors();
  const { loopback, peer, served } = await serve(t);
  const { fd } = release(served);
  const { engine } = loopback;
  const heir = new Recorder(engine);
  const refused = { code: "system" };
  assert.throws(() => engine.adopt(64, fd, heir, { entry: ENTRY.notCounted }), refused);
  assert.throws(() => engine.adopt(-1, fd, heir, { entry: ENTRY.notCounted }), refused);
  assert.throws(() => engine.adopt(0, -1, heir, { entry: ENTRY.notCounted }), refused);
  const full = openEngine(t, { slots: 1 });
  full.connect("127.0.0.1", loopback.port, "", new Int32Array(12).fill(-1), new Recorder(full));
  assert.throws(() => full.adopt(0, fd, heir, { entry: ENTRY.notCounted }), refused);
  // Watched by an engine already.
  heir.slot = engine.adopt(0, fd, heir, { entry: ENTRY.notCounted });
  assert.throws(() => engine.adopt(0, fd, heir, { entry: ENTRY.notCounted }), refused);
  peer.write("alive");
  await until("bytes", () => heir.text === "alive");
  engine.shutdown();
  full.shutdown();
  peer.socket.destroy();
  addon().fdClose(loopback.fd);
  await sameDescriptors(before);
});

test("inside a round nothing is released, because its records may hold more of the connection", async (t) => {
  const { peer, served } = await serve(t);
  let thrown: unknown;
  served.on.onData = () => {
    try {
      release(served);
    } catch (error) {
      thrown = error;
    }
  };
  peer.write("now");
  await until("the refusal", () => thrown);
  assert.equal((thrown as { fields: { errno: string } }).fields.errno, "EBUSY");
  peer.write("then");
  await until("more bytes", () => served.text === "nowthen");
});

/** The kernel still has this end of the connection, and waits for the peer's FIN (/proc/net/tcp, state 05). */
function isHalfClosed(port: number, peerPort: number): boolean {
  const hex = (each: number): string => `:${each.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/net/tcp", "latin1")
    .split("\n")
    .map((row) => row.trim().split(/\s+/));
  return rows.some(
    ([, local, remote, state]) => local?.endsWith(hex(port)) && remote?.endsWith(hex(peerPort)) && state === "05",
  );
}

for (const [linger, left] of [
  [50, false],
  ["off", true],
] as const) {
  test(`a linger of ${linger} is that of the listener that adopts, whether or not it accepts`, async (t) => {
    const { loopback, peer, served } = await serve(t);
    const released = release(served);
    loopback.engine.linger(7, linger);
    const heir = new Recorder(loopback.engine);
    heir.slot = loopback.engine.adopt(7, released.fd, heir, { entry: ENTRY.notCounted });
    heir.generation = loopback.engine.generation(heir.slot);
    heir.close();
    await until("FIN", () => peer.ended);
    await until("the slot to be free", () => loopback.engine.open === 0);
    assert.equal(isHalfClosed(loopback.port, peer.socket.localPort as number), left);
  });
}

test("a listener that cannot be has no linger", (t) => {
  const engine = openEngine(t);
  for (const listener of [-1, 64]) assert.throws(() => engine.linger(listener, 50), { code: "system" });
});
