/**
 * What a peer can do to a server that it is let into: nothing, slowly, for ever, half, or wrong. Each attack runs against
 * a process of its own; meanwhile an ordinary client is served, memory stays bounded, and calm returns afterwards: no
 * connection, no descriptor and no byte is left.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { CloseReason } from "#src/base/reasons.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import type { Engine } from "#src/engine/engine.js";
import { packSocketOptions } from "#src/os/socket.js";
import { makeFolder, writeService } from "../support/folder.js";
import { descriptorsOf } from "../support/footprint.js";
import { openEngine } from "../support/loopback.js";
import { openPeer, type Peer } from "../support/peer.js";
import { startServer, type TestServer } from "../support/server.js";
import { until, within } from "../support/until.js";

const MiB = 1 << 20;
/** RSS above what it was before the attack: budget, arenas, garbage that is not collected yet. */
const MEMORY_MOST = 96 * MiB;
const BUDGET = 16 * MiB;

/** Frames are echoed; "more N" is answered with N frames of 100 KiB. */
const SERVICE = `
import { frame } from "headrace-index";
export default defineService({
  codec: frame(),
  limits: { buffered: "64MiB" },
  onMessage(bytes, { connection }) {
    const [word, count] = bytes.subarray(0, 20).toString("latin1").split(" ");
    if (word !== "more") return bytes;
    for (let i = 0; i < Number(count); i++) connection.send(Buffer.alloc(100 << 10, 1));
  },
});`;

function framed(payload: Uint8Array | string, announced?: number): Buffer {
  const bytes = Buffer.from(payload);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(announced ?? bytes.length);
  return Buffer.concat([head, bytes]);
}

interface Attacked {
  readonly server: TestServer;
  readonly port: number;
  /** Ends it: waits for calm, and checks what was seen meanwhile. */
  calm(): Promise<void>;
  closes(reason: CloseReason): Promise<number>;
}

/** A server, watched, with an ordinary client whose round trips are measured. */
async function attacked(t: TestContext, yaml = ""): Promise<Attacked> {
  const folder = makeFolder(t);
  const path = writeService(folder, SERVICE.replace("headrace-index", import.meta.resolve("#src/index.js")));
  writeFileSync(
    join(folder, "headrace.yaml"),
    `workers: 1
listeners: [{ address: "127.0.0.1:0", service: ${path} }]
limits: { bufferMemory: 16MiB }
timeouts: { firstByte: 500ms, frame: 1s, idle: 3s, writeStall: 1s }
socket: { sendBuffer: 64KiB }
${yaml}`,
  );
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  const client = await openPeer(t, port);
  const trips: number[] = [];
  let done = false;
  const ordinary = (async () => {
    const ping = framed("ordinary");
    for (let count = 1; !done; count++) {
      const began = performance.now();
      client.write(ping);
      if (client.length < count * ping.length) await once(client.socket, "data");
      trips.push(performance.now() - began);
      await pause(20);
    }
  })();
  await until("the ordinary client is served", () => trips.length > 20);
  const before = await server.status();
  const [worker] = before.workers;
  const pid = worker?.pid ?? 0;
  const descriptors = descriptorsOf(pid);
  const peak = { memory: 0, held: 0 };
  const watching = (async () => {
    while (!done) {
      const { workers, totals } = await server.status();
      peak.memory = Math.max(peak.memory, workers[0]?.memoryBytes ?? 0);
      peak.held = Math.max(peak.held, totals.bytesHeldIn + totals.bytesHeldOut);
      await pause(30);
    }
  })();
  return {
    server,
    port,
    closes: async (reason) => (await server.status()).closes[reason],
    async calm() {
      await until("only the ordinary client is left", async () => (await server.status()).totals.open === 1);
      await until("no descriptor is left", () => descriptorsOf(pid) <= descriptors);
      done = true;
      await Promise.all([ordinary, watching]);
      assert.equal(client.closed, false);
      client.socket.destroy();
      const { totals, workers } = await until("no byte is left", async () => {
        const status = await server.status();
        const { open, bytesHeldIn, bytesHeldOut } = status.totals;
        return open === 0 && bytesHeldIn === 0 && bytesHeldOut === 0 ? status : undefined;
      });
      assert.equal(totals.restarts, 0);
      assert.equal(workers[0]?.pid, pid);
      const grown = peak.memory - (worker?.memoryBytes ?? 0);
      assert.ok(grown <= MEMORY_MOST, `${grown} bytes of memory more`);
      assert.ok(peak.held <= BUDGET + 2 * MiB, `${peak.held} bytes in buffers`);
      const [p50 = 0, p99 = 0] = [0.5, 0.99].map(
        (part) => trips.toSorted((a, b) => a - b)[Math.floor(part * trips.length)],
      );
      t.diagnostic(
        `ordinary p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${trips.length}; memory +${Math.round(grown / MiB)} MiB; ` +
          `at most ${Math.round(peak.held / 1024)} KiB in buffers`,
      );
    },
  };
}

function openPeers(t: TestContext, count: number, port: number, options = {}): Promise<Peer[]> {
  return Promise.all(Array.from({ length: count }, () => openPeer(t, port, options)));
}

/** The ms after which each was closed, 0 when it was before; closes it too when the server has. */
async function endsOf(peers: readonly Peer[]): Promise<number[]> {
  const began = performance.now();
  const ends = peers.map(
    (peer) =>
      new Promise<number>((resolve) => {
        const ended = (): void => {
          peer.socket.destroy();
          resolve(performance.now() - began);
        };
        if (peer.ended || peer.closed) ended();
        else peer.socket.once("end", ended).once("close", ended);
      }),
  );
  return within("every peer to be closed", Promise.all(ends));
}

function assertInTime(ends: readonly number[], ms: number): void {
  const [first, last] = [Math.min(...ends), Math.max(...ends)];
  // Connecting itself took a moment, and this process is slow too.
  assert.ok(first >= ms * 0.8 - 100 && last <= ms * 1.01 + 600, `${first} to ${last} instead of ${ms}`);
}

test("300 peers that connect and never send", async (t) => {
  const { port, closes, calm } = await attacked(t);
  const peers = await openPeers(t, 300, port);
  assertInTime(await endsOf(peers), 500);
  assert.equal(await closes("first-byte-timeout"), 300);
  await calm();
});

for (const [where, begun] of [
  ["before a frame is announced", Buffer.from([0])],
  ["inside a frame", framed("half", 500_000)],
] as const) {
  test(`200 peers that send a byte now and then for ever, ${where}`, async (t) => {
    const { port, closes, calm } = await attacked(t);
    const peers = await openPeers(t, 200, port);
    for (const peer of peers) peer.write(begun);
    let beats = 0;
    const dribble = setInterval(() => {
      beats += 1;
      // A length has four bytes: two more do not make one.
      if (begun.length < 4 && beats !== 4 && beats !== 8) return;
      for (const peer of peers) if (!peer.closed && !peer.ended) peer.write("\0");
    }, 100);
    assertInTime(await endsOf(peers), 1_000);
    clearInterval(dribble);
    assert.equal(await closes("frame-timeout"), 200);
    await calm();
  });
}

test("20 peers that ask for more and read a byte now and then, beside one that reads slowly, but on", async (t) => {
  const { server, port, closes, calm } = await attacked(t);
  // More than the kernel's buffers take, and less in all than the worker's budget.
  const peers = await openPeers(t, 20, port, { paused: true });
  for (const peer of peers) peer.write(framed("more 5"));
  const slow = await openPeer(t, port, { paused: true });
  slow.write(framed("more 40"));
  let [bytes, steady] = [0, 0];
  const reading = setInterval(() => {
    for (const peer of peers) bytes += peer.take(1);
    steady += slow.take(64 << 10);
  }, 100);
  await until("they were closed", async () => (await closes("write-stall")) === 20);
  assert.ok(bytes >= 5 * 20, `they did read: ${bytes} bytes`);
  const read = steady;
  await until("the slow one reads on", () => steady > read + (256 << 10));
  clearInterval(reading);
  assert.equal((await server.status()).totals.open, 2);
  assert.equal(await closes("memory-pressure"), 0);
  slow.reset();
  await calm();
});

/** A peer that reads as little as it likes: past node:net, which would empty the kernel's buffer into its own. */
class SlowReader {
  readonly #engine: Engine;
  readonly #slot: number;
  readonly #generation: number;
  received = 0;
  closed = false;

  /** With a receive buffer of the least that the kernel has, so that what it does not read, nobody can send. */
  constructor(engine: Engine, port: number, first: Uint8Array) {
    this.#engine = engine;
    const options = packSocketOptions({ ...DEFAULT_SOCKET, receiveBuffer: 2_304 });
    const ended = (): void => {
      this.closed = true;
      engine.reset(this.#slot, this.#generation);
    };
    const owner = {
      onOpen: () => engine.sendLarge(this.#slot, this.#generation, first),
      onData: (_: Uint8Array, from: number, to: number) => {
        this.received += to - from;
        engine.pause(this.#slot, this.#generation);
      },
      onEnd: ended,
      onError: ended,
      onWritable() {},
      onBlocked() {},
    };
    this.#slot = engine.connect("127.0.0.1", port, "", options, owner);
    this.#generation = engine.generation(this.#slot);
  }

  /** What its kernel has for it, once. */
  readOn(): void {
    if (!this.closed) this.#engine.resume(this.#slot, this.#generation);
  }
}

test("20 peers that ask for more than there is memory and read slowly: no stall, but the largest have to go", async (t) => {
  const { server, port, closes, calm } = await attacked(t);
  const engine = openEngine(t);
  const readers = Array.from({ length: 20 }, () => new SlowReader(engine, port, framed("more 10")));
  const reading = setInterval(() => {
    for (const reader of readers) reader.readOn();
    engine.flush();
  }, 50);
  const begun = performance.now();
  await until("the first were closed", async () => (await closes("memory-pressure")) > 0);
  // Three times as long as a peer may take nothing.
  await until("time", () => performance.now() - begun > 3_000);
  assert.equal(await closes("write-stall"), 0, "who takes something, however little, does not stall");
  const left = readers.filter(({ closed }) => !closed);
  assert.ok(left.length > 0 && left.every(({ received }) => received > 2_304 * 3), `${left.length}`);
  assert.ok((await closes("memory-pressure")) >= 20 - left.length, "nothing else closed any");
  clearInterval(reading);
  engine.shutdown();
  await until("all were closed", async () => (await server.status()).totals.open === 1);
  await calm();
});

test("100 peers that ask for more and never read", async (t) => {
  const { server, port, closes, calm } = await attacked(t);
  const peers = await openPeers(t, 100, port, { paused: true });
  const more = Buffer.concat(Array.from({ length: 500 }, () => framed("more 10")));
  for (const peer of peers) peer.write(more);
  await until("all were closed", async () => (await server.status()).totals.open === 1);
  assert.equal((await closes("write-stall")) + (await closes("memory-pressure")), 100);
  await calm();
});

test("200 half-open peers: some say no more and read nothing, some neither", async (t) => {
  const { port, closes, calm } = await attacked(t);
  const peers = await openPeers(t, 200, port, { paused: true });
  for (const [index, peer] of peers.entries()) {
    if (index % 2 === 0) peer.write(framed("more 1"));
    else peer.write(framed("half", 50).subarray(0, 20));
    if (index % 4 < 2) peer.end();
  }
  await until("all were closed", async () => {
    const counts = await Promise.all(
      (["peer-closed", "frame-timeout", "write-stall", "idle-timeout"] as const).map(closes),
    );
    return counts.reduce((sum, count) => sum + count, 0) === 200;
  });
  await calm();
});

test("a storm of 3,000 resets: at once, in a frame, with replies on the way", async (t) => {
  const { port, server, calm } = await attacked(t);
  const words = [undefined, framed("half", 50), framed("more 2"), framed("echo")];
  for (let round = 0; round < 30; round++) {
    const peers = await openPeers(t, 100, port);
    for (const [index, peer] of peers.entries()) {
      const word = words[index % words.length];
      if (word) peer.write(word);
    }
    await pause(5);
    for (const peer of peers) peer.reset();
  }
  // One that is reset before it is accepted is never seen.
  await until("all were closed", async () => (await server.status()).totals.open === 1);
  await calm();
});

test("garbage of every length up to 2,000 bytes, and frames announced at 4 GiB", async (t) => {
  const { port, server, closes, calm } = await attacked(t);
  for (let from = 1; from <= 2_000; from += 200) {
    const peers = await openPeers(t, 200, port);
    for (const [index, peer] of peers.entries()) {
      const bytes = randomBytes(from + index);
      // Never a length that would be allowed: that would be a frame.
      if (bytes.length >= 4) bytes[0] = 0xff;
      peer.write(bytes);
      if (bytes.length < 4) peer.end();
    }
    await endsOf(peers);
  }
  assert.equal(await closes("frame-too-large"), 1_997);
  const giants = await openPeers(t, 100, port);
  for (const peer of giants) peer.write(framed(Buffer.alloc(60_000), 0xffff_ffff));
  await endsOf(giants);
  assert.equal(await closes("frame-too-large"), 2_097);
  assert.equal((await server.status()).totals.open, 1);
  await calm();
});

test("50 peers whose frames come byte by byte are answered", async (t) => {
  const { port, calm } = await attacked(t);
  const peers = await openPeers(t, 50, port);
  const bytes = framed(Buffer.alloc(296, "slow"));
  for (const byte of bytes) {
    for (const peer of peers) peer.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (const peer of peers) {
    await peer.receives(bytes.length);
    assert.ok(peer.bytes.equals(bytes));
    peer.end();
  }
  await endsOf(peers);
  await calm();
});
