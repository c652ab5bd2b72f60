/** The worker's budget: who is held back, who is closed, when it is over, and that nothing is counted in the end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import { type BufferHolder, BufferMemory } from "#src/connection/buffer-memory.js";
import { testConnection } from "#src/connection/harness.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { defineService } from "#src/service/define.js";
import { openPeer } from "../support/peer.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

const BUDGET = 1_000;

class Holder implements BufferHolder {
  readonly name: string;
  heldBytes: number;
  waits = false;
  closed = false;

  constructor(name: string, heldBytes: number) {
    this.name = name;
    this.heldBytes = heldBytes;
  }

  holdBack(): void {
    this.waits = true;
  }

  goOn(): void {
    this.waits = false;
  }

  reset(reason: string): void {
    assert.equal(reason, "memory-pressure");
    this.closed = true;
    this.heldBytes = 0;
  }
}

/** Holders of so many bytes, all of them unsent, and closed ones that hold `closing`. */
function open(sizes: Record<string, number>, closing = 0) {
  const holders = Object.entries(sizes).map(([name, bytes]) => new Holder(name, bytes));
  const transport = {
    now: 5_000,
    closing,
    get bytesHeldOut() {
      return this.closing + holders.reduce((sum, { heldBytes }) => sum + heldBytes, 0);
    },
    flush() {},
    abandon(bytes: number) {
      const freed = Math.min(this.closing, bytes);
      this.closing -= freed;
      return freed;
    },
  };
  const head = new Float64Array(WORKER_FIELDS.length);
  const log = pino({ level: "silent" });
  const memory = new BufferMemory({
    transport,
    budget: BUDGET,
    head,
    log,
    holders: () => holders.filter(({ closed }) => !closed),
  });
  const names = (fits: (holder: Holder) => boolean): string =>
    holders
      .filter(fits)
      .map(({ name }) => name)
      .join("");
  return {
    memory,
    transport,
    of: (name: string) => holders.find((holder) => holder.name === name) as Holder,
    waiting: () => names(({ waits, closed }) => waits && !closed),
    closed: () => names(({ closed }) => closed),
    pass(ms: number) {
      for (const end = transport.now + ms; transport.now < end; transport.now += 50) memory.review();
    },
  };
}

test("up to three quarters of the budget nothing happens", () => {
  const { pass, waiting, closed } = open({ a: 400, b: 350 });
  pass(60_000);
  assert.deepEqual([waiting(), closed()], ["", ""]);
});

test("above it the largest wait, so many that the others hold half of it; until all hold half of it", () => {
  const { pass, of, waiting, closed } = open({ a: 10, b: 200, c: 300, d: 290 });
  pass(100);
  assert.equal(waiting(), "c");
  of("d").heldBytes = 310;
  of("c").heldBytes = 250;
  pass(100);
  assert.equal(waiting(), "cd");
  of("c").heldBytes = 0;
  of("d").heldBytes = 300;
  pass(100);
  assert.equal(waiting(), "cd", "510 are held: not yet");
  of("d").heldBytes = 290;
  pass(100);
  assert.deepEqual([waiting(), closed()], ["", ""]);
});

test("as long as it lasts, the one that holds most is closed each second", () => {
  const { pass, closed } = open({ a: 10, b: 240, c: 260, d: 280 });
  pass(1_000);
  assert.equal(closed(), "");
  pass(100);
  assert.equal(closed(), "d");
  pass(850);
  assert.equal(closed(), "d");
  pass(100);
  assert.equal(closed(), "cd");
  pass(60_000);
  assert.equal(closed(), "cd", "what is left is half of it");
});

test("past the budget the largest are closed at once, and no more than need be", () => {
  const { memory, closed } = open({ a: 10, b: 400, c: 500, d: 200 });
  memory.guard();
  assert.equal(closed(), "c");
});

test("past the budget those that are closed already, and only wait for their peers, go first", () => {
  const { memory, transport, closed } = open({ a: 400, b: 300 }, 600);
  memory.guard();
  assert.deepEqual([transport.closing, closed()], [175, ""]);
});

test("a budget that a reload makes smaller holds at once, a larger one ends it", () => {
  const { memory, pass, waiting, closed } = open({ a: 300, b: 200 });
  memory.limit(600);
  pass(100);
  assert.equal(waiting(), "a");
  memory.limit(2_000);
  pass(100);
  assert.equal(waiting(), "");
  memory.limit(300);
  pass(100);
  assert.equal(closed(), "a");
});

test("a connection that is held back reads on when it is over, and loses nothing", () => {
  const harness = testConnection(defineService({ codec: line(), onMessage: (text) => text }), {
    limits: { bufferMemory: 10_000, highWater: 20_000, buffered: 30_000, lowWater: 1 },
  });
  harness.stallWrites();
  harness.connection.send("x".repeat(8_000));
  harness.push("a\n");
  harness.push("b\n");
  assert.equal(harness.readsPaused, true);
  harness.resumeWrites();
  harness.tick(50);
  assert.equal(harness.readsPaused, false);
  assert.equal(harness.sent().subarray(8_001).toString(), "a\nb\n");
});

test("a message that brings the worker over its budget closes the worst, which hears why", () => {
  let why: string | undefined;
  const service = defineService({
    codec: line(),
    onMessage: () => {},
    onClose: (_connection, reason) => {
      why = reason;
    },
  });
  const harness = testConnection(service, { limits: { bufferMemory: 10_000, highWater: 1 << 20, buffered: 1 << 20 } });
  harness.stallWrites();
  assert.equal(harness.connection.send("x".repeat(9_000)), "ok");
  assert.equal(harness.connection.send("x".repeat(2_000)), "closed");
  assert.deepEqual([harness.closed, why], ["memory-pressure", "memory-pressure"]);
});

const HELD_IN = WORKER_FIELDS.indexOf("bytesHeldIn");
const HELD_OUT = WORKER_FIELDS.indexOf("bytesHeldOut");

test("real sockets: a broadcast to readers that do not read stays within the budget; nothing is left counted", async (t) => {
  const budget = 4 << 20;
  let peak = 0;
  const feed = defineService({
    codec: line(),
    env: () => new Set<{ send(text: string): unknown }>(),
    timeouts: { firstByte: "off" },
    limits: { highWater: "1MiB", buffered: "64MiB" },
    onOpen: (connection, all) => void all.add(connection),
    onClose: (connection, _reason, all) => void all.delete(connection),
    onMessage: (text, { env: all }) => {
      // Within one turn of the event loop: nothing but the sending itself can notice.
      for (let i = 0; i < Number(text); i++) {
        for (const each of all) each.send("x".repeat(60_000));
        const { head } = serving.server.block;
        peak = Math.max(peak, (head[HELD_IN] as number) + (head[HELD_OUT] as number));
      }
    },
  });
  const serving = await openServing(t, feed, { bufferMemory: budget, socket: { sendBuffer: 65_536 } });
  const readers = await Promise.all(Array.from({ length: 20 }, () => openPeer(t, serving.port, { paused: true })));
  const speaker = await openPeer(t, serving.port);
  speaker.write("60\n");
  await until("the largest are closed", () => (serving.closes()["memory-pressure"] ?? 0) >= 5);
  assert.ok(peak <= budget + (3 << 20), `${peak}`);
  assert.equal(speaker.closed, false, "who reads stays");
  for (const reader of readers) reader.socket.destroy();
  speaker.end();
  const { head } = serving.server.block;
  await until("calm", () => serving.server.engine.open === 0 && head[HELD_IN] === 0 && head[HELD_OUT] === 0);
});

test("real sockets: large frames that never end stay within the budget, others are served meanwhile", async (t) => {
  const budget = 4 << 20;
  const service = defineService({ codec: frame(), onMessage: (bytes) => bytes });
  const serving = await openServing(t, service, { bufferMemory: budget, timeouts: { frame: "off" } });
  const { head } = serving.server.block;
  const announced = Buffer.alloc(900_000);
  announced.writeUInt32BE(1 << 20);
  let peak = 0;
  serving.server.engine.onRound(() => {
    peak = Math.max(peak, head[HELD_IN] as number);
  });
  const peers = await Promise.all(Array.from({ length: 12 }, () => openPeer(t, serving.port)));
  for (const peer of peers) peer.write(announced);
  const good = await openPeer(t, serving.port);
  const hello = Buffer.from("\0\0\0\x02hi");
  for (let echoed = 1; echoed <= 30; echoed++) {
    good.write(hello);
    await good.receives(echoed * hello.length);
  }
  await until("the worst are closed", () => (serving.closes()["memory-pressure"] ?? 0) >= 5);
  await until("half of it is free", () => (head[HELD_IN] as number) <= budget / 2);
  assert.ok(peak <= budget + (1 << 20), `${peak}`);
  for (const peer of [...peers, good]) peer.socket.destroy();
  await until("calm", () => serving.server.engine.open === 0);
  assert.equal(head[HELD_IN], 0);
  assert.equal(head[HELD_OUT], 0);
});

test("real sockets: replies that wait for their turn are counted, and not any more afterwards", async (t) => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    concurrency: "ordered",
    onMessage: (text): string | Promise<string> => (text === "slow" ? slow() : "y".repeat(10_000)),
  });
  const slow = (): Promise<string> =>
    new Promise((resolve) => {
      release = () => resolve("slow");
    });
  const serving = await openServing(t, service);
  const { head } = serving.server.block;
  for (const finish of [true, false]) {
    const peer = await openPeer(t, serving.port);
    peer.write(`slow\n${"x\n".repeat(20)}`);
    await until("they wait", () => (head[HELD_IN] as number) >= 200_000);
    if (finish) release?.();
    else peer.reset();
    if (finish) await peer.receives(5 + 20 * 10_001);
    await until("nothing waits", () => head[HELD_IN] === 0);
  }
});

for (const [name, codec] of [
  ["frame", frame()],
  ["line", line()],
] as const) {
  test(`the largest ${name} that a budget allows gets whole, slowly too`, async (t) => {
    // As unlucky as can be: its buffer, a power of two, is nearly twice its size.
    const bufferMemory = 3 * 1_100_000;
    const size = 1_100_000;
    const service = defineService<unknown, string | Uint8Array>({ codec: codec as never, onMessage: () => "got it" });
    const serving = await openServing(t, service, { bufferMemory, limits: { frame: size } });
    const peer = await openPeer(t, serving.port);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(size);
    const bytes = name === "frame" ? Buffer.concat([head, Buffer.alloc(size)]) : Buffer.alloc(size + 1, "x");
    if (name === "line") bytes[size] = 10;
    peer.write(bytes.subarray(0, bytes.length - 1));
    await until("all but a byte is there", () => serving.scoreboard.block(0).get("bytesReceived") >= bytes.length - 1);
    peer.write(bytes.subarray(bytes.length - 1));
    await until("a reply", () => peer.text.includes("got it") || peer.closed);
    assert.deepEqual(serving.closes(), {});
  });
}
test("real sockets: a topic's queue past the budget closes who it waits for, not everybody who holds a byte", async (t) => {
  const service = defineService({
    codec: line(),
    timeouts: { firstByte: "off", frame: "off", idle: "off", writeStall: "60s" },
    topics: { queued: 65_536 },
    onMessage: (text, { connection }) => {
      if (text === "+") {
        connection.subscribe("room");
        return "ok";
      }
      for (let i = 0; i < Number(text); i++) connection.publish("room", `${i} ${"x".repeat(60_000)}`);
      return "done";
    },
  });
  const serving = await openServing(t, service, { socket: { sendBuffer: 4_096 }, bufferMemory: 8 << 20 });
  const slow = await Promise.all(Array.from({ length: 2 }, () => openPeer(t, serving.port)));
  for (const peer of slow) peer.write("+\n");
  for (const peer of slow) await peer.receives(3);
  for (const peer of slow) peer.socket.pause();
  const innocents = await Promise.all(Array.from({ length: 100 }, () => openPeer(t, serving.port)));
  for (const peer of innocents) peer.write("half a line");
  const { head } = serving.server.block;
  await until("they hold something", () => (head[HELD_IN] as number) >= 100 * 256);
  const speaker = await openPeer(t, serving.port);
  // In one turn: nobody is closed for holding most of what is not too much yet.
  speaker.write("400\n");
  await speaker.receives(5);
  assert.deepEqual(serving.closes(), { "memory-pressure": 2 });
  assert.ok(innocents.every(({ closed, ended }) => !closed && !ended));
  for (const peer of [...slow, ...innocents, speaker]) peer.socket.destroy();
  await until("calm", () => serving.server.engine.open === 0 && head[HELD_IN] === 0 && head[HELD_OUT] === 0);
});
