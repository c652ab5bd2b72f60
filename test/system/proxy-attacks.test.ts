/**
 * What may be done to a listener that reads PROXY headers: say half of one, slowly, or nothing, announce too much, or pose
 * as a proxy. Meanwhile an ordinary client, who comes by a proper header, is served without delay, memory stays bounded,
 * and nothing is left afterwards.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { CloseReason } from "#src/base/reasons.js";
import type { ServerStatus } from "#src/control/status.js";
import { makeFolder } from "../support/folder.js";
import { attemptPeer, openPeer, type Peer } from "../support/peer.js";
import { ENDS, v1, v2, v2Raw } from "../support/proxy-headers.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const DEADLINE_MS = 1_000;
const MiB = 1 << 20;
const MEMORY_MOST = 64 * MiB;
const STRANGER = "127.0.0.2";

interface Attacked {
  readonly server: TestServer;
  readonly port: number;
  closes(reason: CloseReason): Promise<number>;
  /** Ends it: waits for calm, and checks what was seen meanwhile. `heldMost`: bytes that may have waited. */
  calm(heldMost: number): Promise<void>;
}

async function attacked(t: TestContext): Promise<Attacked> {
  const folder = makeFolder(t);
  writeFileSync(
    join(folder, "headrace.yaml"),
    `workers: 1
listeners: [{ address: "127.0.0.1:0", service: echo-line, proxyProtocol: { trust: [127.0.0.1] } }]
limits: { connectionsPerAddress: 1 }
timeouts: { proxyHeader: ${DEADLINE_MS}ms, idle: off }
`,
  );
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  const client = await openPeer(t, port);
  client.write(v1());
  const trips: number[] = [];
  let done = false;
  const ordinary = (async () => {
    for (let count = 1; !done; count++) {
      const began = performance.now();
      client.write("ordinary\n");
      if (client.length < count * 9) await once(client.socket, "data");
      trips.push(performance.now() - began);
      await pause(10);
    }
  })();
  await until("the ordinary client is served", () => trips.length > 20);
  const [worker] = (await server.status()).workers;
  const pid = worker?.pid ?? 0;
  const descriptors = readdirSync(`/proc/${pid}/fd`).length;
  const peak = { memory: 0, held: 0, prefaces: 0 };
  const look = async (): Promise<ServerStatus> => {
    const status = await server.status();
    peak.memory = Math.max(peak.memory, status.workers[0]?.memoryBytes ?? 0);
    peak.held = Math.max(peak.held, status.totals.bytesHeldIn);
    peak.prefaces = Math.max(peak.prefaces, status.listeners[0]?.prefaces ?? 0);
    return status;
  };
  const watching = (async () => {
    for (; !done; await pause(30)) await look();
  })();
  return {
    server,
    port,
    closes: async (reason) => (await server.status()).closes[reason],
    async calm(heldMost) {
      await until("no preface is left", async () => (await look()).listeners[0]?.prefaces === 0);
      await until("no descriptor is left", () => readdirSync(`/proc/${pid}/fd`).length <= descriptors);
      done = true;
      await Promise.all([ordinary, watching]);
      const { totals, workers } = await server.status();
      assert.deepEqual([totals.open, totals.bytesHeldIn, totals.restarts, workers[0]?.pid], [1, 0, 0, pid]);
      const grown = peak.memory - (worker?.memoryBytes ?? 0);
      assert.ok(grown <= MEMORY_MOST, `${grown} bytes of memory more`);
      assert.ok(peak.held <= heldMost, `${peak.held} bytes held`);
      const sorted = trips.toSorted((a, b) => a - b);
      const [p50 = 0, p99 = 0] = [0.5, 0.99].map((part) => sorted[Math.floor(part * trips.length)]);
      t.diagnostic(
        `ordinary p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${trips.length}; memory +${Math.round(grown / MiB)} MiB; ` +
          `at most ${peak.prefaces} unfinished headers, ${Math.round(peak.held / 1024)} KiB held`,
      );
      assert.ok(p99 < 1_000, `p99 ${p99} ms`);
    },
  };
}

async function openPeers(t: TestContext, count: number, port: number): Promise<Peer[]> {
  const peers: Peer[] = [];
  for (let left = count; left > 0; left -= 100) {
    const batch = Array.from({ length: Math.min(100, left) }, () => attemptPeer(t, port));
    peers.push(...(await Promise.all(batch)));
  }
  return peers;
}

const allClosed = (peers: readonly Peer[]): Promise<true> =>
  until("every peer is closed", () => peers.every(({ closed }) => closed) || undefined);

test("1,000 headers that are begun and never finished, and 500 that are never begun", async (t) => {
  const { port, closes, calm } = await attacked(t);
  const peers = await openPeers(t, 1_500, port);
  const halves = [v1().subarray(0, 30), v2().subarray(0, 14), v2Raw(0x21, 0x11, Buffer.alloc(500, 1), 4_000)];
  for (const [index, peer] of peers.entries()) if (index < 1_000) peer.write(halves[index % halves.length] ?? "");
  await allClosed(peers);
  assert.equal(await closes("proxy-header-timeout"), 1_500);
  await calm(1_000 * 1_024);
});

test("300 headers that come byte by byte for longer than they may", async (t) => {
  const { port, closes, calm } = await attacked(t);
  const peers = await openPeers(t, 300, port);
  const header = v2(ENDS, [{ type: 0xe0, value: Buffer.alloc(200) }]);
  let at = 0;
  const dribble = setInterval(() => {
    const byte = header.subarray(at, ++at);
    for (const peer of peers) if (!peer.closed) peer.write(byte);
  }, 50);
  t.after(() => clearInterval(dribble));
  await allClosed(peers);
  clearInterval(dribble);
  assert.equal(await closes("proxy-header-timeout"), 300);
  await calm(300 * 256);
});

test("500 headers of version 2 that announce 64 KiB, and 500 lines without an end, are not waited for", async (t) => {
  const { port, closes, calm } = await attacked(t);
  const peers = await openPeers(t, 1_000, port);
  const began = performance.now();
  const giant = v2Raw(0x21, 0x11, Buffer.alloc(4_000, 1), 65_535);
  const endless = Buffer.from(`PROXY TCP4 ${"1".repeat(4_000)}`);
  for (const [index, peer] of peers.entries()) peer.write(index % 2 === 0 ? giant : endless);
  await allClosed(peers);
  assert.ok(performance.now() - began < 5_000);
  assert.equal(await closes("proxy-invalid"), 1_000);
  await calm(64 * 1_024);
});

test("garbage, and headers with a few bytes changed: closed, or somebody else's, and never more than that", async (t) => {
  const { server, port, calm } = await attacked(t);
  for (let round = 0; round < 10; round++) {
    const peers = await openPeers(t, 100, port);
    for (const [index, peer] of peers.entries()) {
      const bytes = index % 2 === 0 ? v1() : v2(ENDS, [{ type: 5, value: randomBytes(30) }], true);
      const places = randomBytes(2);
      if (index % 4 < 2) bytes[(places[0] ?? 0) % bytes.length] = places[1] ?? 0;
      peer.socket.end(index % 4 === 3 ? randomBytes(100) : bytes);
    }
    await allClosed(peers);
  }
  await until("only the ordinary client is left", async () => (await server.status()).totals.open === 1);
  await calm(100 * 4_096);
});

test("a stranger who poses as a proxy is nobody, and the client whose name he used keeps his place", async (t) => {
  const { server, port, closes, calm } = await attacked(t);
  for (let round = 0; round < 5; round++) {
    const strangers = await Promise.all(Array.from({ length: 100 }, () => attemptPeer(t, port, STRANGER)));
    // The ordinary client's own address is full: whoever were believed would be turned away for that.
    for (const [index, peer] of strangers.entries()) if (!peer.closed) peer.write(index % 2 === 0 ? v1() : v2());
    await allClosed(strangers);
    assert.ok(strangers.every(({ length }) => length === 0));
  }
  assert.equal(await closes("proxy-untrusted"), 500);
  const { rejections, listeners } = await server.status();
  assert.equal(rejections["per-address"], 0);
  assert.equal(listeners[0]?.opened, 1);
  const warnings = server.lines.filter(({ msg }) => msg.startsWith("PROXY header: "));
  assert.ok(warnings.length > 0 && warnings.length < 20, `${warnings.length} lines in the log`);
  await calm(4_096);
});
