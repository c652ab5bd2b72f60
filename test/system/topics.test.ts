/** Topics across the workers of a machine: real processes, replaced and killed while messages are published. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type LineClient, openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { watchFootprint } from "../support/footprint.js";
import { openPeer, type Peer } from "../support/peer.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

/** "pid", "+topic", or "topic message"; every 100 ms env says the time to "clock". */
const SERVICE = `
export default defineService({
  codec: line(),
  timeouts: { firstByte: "off", idle: "off", writeStall: "60s" },
  topics: { queued: 32 },
  env(worker) {
    const timer = setInterval(() => worker.publish("clock", "worker " + worker.index), 100);
    worker.signal.addEventListener("abort", () => clearInterval(timer));
  },
  onMessage(text, { connection }) {
    if (text === "pid") return String(process.pid);
    if (text.startsWith("+")) {
      connection.subscribe(text.slice(1));
      return "subscribed";
    }
    connection.publish(text.split(" ", 1)[0], text);
  },
});`;

const MiB = 1 << 20;

async function startRoom(t: TestContext, yaml: string): Promise<{ server: TestServer; port: number }> {
  const folder = makeFolder(t);
  const path = writeService(folder, SERVICE);
  writeFileSync(
    join(folder, "headrace.yaml"),
    `listeners: [{ address: "127.0.0.1:0", service: ${path} }]\ntimeouts: { prove: 300ms, drain: 5s }\n${yaml}`,
  );
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  return { server, port };
}

async function ask(client: LineClient, line: string): Promise<string> {
  client.send(line);
  return client.line();
}

/** Clients until `workers` processes have one each, and which one. */
async function clientOfEach(t: TestContext, port: number, workers: number): Promise<Map<string, LineClient>> {
  const clients = new Map<string, LineClient>();
  for (let tries = 0; clients.size < workers && tries < 500; tries++) {
    const client = await openClient(t, port);
    const pid = await ask(client, "pid");
    if (clients.has(pid)) client.socket.destroy();
    else clients.set(pid, client);
  }
  assert.equal(clients.size, workers);
  return clients;
}

/** Each says something, and all hear it, in the order of each speaker. */
async function assertHeard(clients: Iterable<LineClient>, topic: string, round: string): Promise<void> {
  const all = [...clients];
  for (const [index, client] of all.entries()) {
    for (let number = 0; number < 3; number++) client.send(`${topic} ${round}.${index}.${number}`);
  }
  for (const client of all) {
    const heard: string[] = [];
    while (heard.length < 3 * all.length) heard.push(await client.line());
    for (const index of all.keys()) {
      const from = heard.filter((line) => line.startsWith(`${topic} ${round}.${index}.`));
      assert.deepEqual(
        from,
        [0, 1, 2].map((number) => `${topic} ${round}.${index}.${number}`),
      );
    }
  }
}

test("what one worker publishes reaches the subscribers of all, through scale, reload, upgrade and a crash", async (t) => {
  const { server, port } = await startRoom(t, "workers: 2\n");
  const footprint = await watchFootprint(t, server, { memory: 64 * MiB, held: MiB });
  const clients = await clientOfEach(t, port, 2);
  for (const client of clients.values()) assert.equal(await ask(client, "+room"), "subscribed");
  await assertHeard(clients.values(), "room", "at first");
  const command = async (...words: string[]): Promise<void> => {
    const { code, stderr } = await server.command(...words, "--wait", "--control", server.control);
    assert.equal(code, 0, stderr);
  };
  await command("scale", "3");
  await assertHeard(clients.values(), "room", "scaled");
  await command("reload", "--replace");
  await assertHeard(clients.values(), "room", "reloaded");
  await command("upgrade");
  // Connections move after the command has returned, and one that moves may miss what is published meanwhile.
  await until("all have moved", async () => (await server.status()).draining.length === 0);
  await assertHeard(clients.values(), "room", "upgraded");
  const [victim] = (await server.status()).workers;
  const there = await Promise.all([...clients.values()].map((client) => ask(client, "pid")));
  process.kill(victim?.pid ?? 0, "SIGKILL");
  await until("it is replaced", async () => (await server.status()).totals.restarts > 0);
  const fresh = await clientOfEach(t, port, 3);
  for (const client of fresh.values()) assert.equal(await ask(client, "+room"), "subscribed");
  const left = [...clients.values()].filter((_, index) => there[index] !== String(victim?.pid));
  await assertHeard([...left, ...fresh.values()], "room", "after the crash");
  assert.equal((await server.status()).totals.dropped, 0);
  for (const { socket } of [...clients.values(), ...fresh.values()]) socket.destroy();
  t.diagnostic(await footprint.calm());
});

test("what env publishes in one worker is heard in every worker", async (t) => {
  const { server, port } = await startRoom(t, "workers: 2\n");
  const footprint = await watchFootprint(t, server, { memory: 64 * MiB, held: MiB });
  const clients = await clientOfEach(t, port, 2);
  for (const client of clients.values()) {
    client.send("+clock");
    const heard = new Set<string>();
    await until("both workers' clocks", async () => heard.add(await client.line()).size >= 3);
  }
  for (const { socket } of clients.values()) socket.destroy();
  t.diagnostic(await footprint.calm());
});

const MESSAGES = 150;
const PAD = "x".repeat(6_000);

test("200 slow readers of a broadcast beside 2,000 fast ones", async (t) => {
  const { server, port } = await startRoom(
    t,
    "workers: 2\nlimits: { connections: 3000, bufferMemory: 64MiB }\nsocket: { sendBuffer: 32KiB }\n",
  );
  // Of a slow one, at most what is over the high-water mark and 32 messages that all of them share.
  const footprint = await watchFootprint(t, server, { memory: 128 * MiB, held: 48 * MiB });
  const open = async (count: number): Promise<Peer[]> => {
    const peers: Peer[] = [];
    for (let at = 0; at < count; at += 100) {
      peers.push(...(await Promise.all(Array.from({ length: 100 }, () => openPeer(t, port)))));
    }
    for (const peer of peers) peer.write("+feed\n");
    for (const peer of peers) await peer.receives("subscribed\n".length);
    return peers;
  };
  const fast = await open(2_000);
  const slow = await open(200);
  for (const { socket } of slow) socket.pause();
  const speaker = await openClient(t, port);
  const text = (number: number): string => `feed ${number} ${PAD}`;
  const size = text(100).length + 1;
  // What each fast one has received, without keeping it.
  const counts = fast.map(() => 0);
  const sample = fast[0] as Peer;
  for (const [index, { socket }] of fast.entries()) {
    if (index > 0) socket.removeAllListeners("data");
    socket.on("data", (chunk: Buffer) => {
      counts[index] = (counts[index] ?? 0) + chunk.length;
    });
  }
  const waits: number[] = [];
  for (let number = 100; number < 100 + MESSAGES; number++) {
    const began = performance.now();
    speaker.send(text(number));
    const due = (number - 99) * size;
    await until(`message ${number}`, () => counts.every((count) => count >= due));
    waits.push(performance.now() - began);
  }
  const lines = sample.text.trimEnd().split("\n").slice(1);
  assert.deepEqual(
    lines,
    Array.from({ length: MESSAGES }, (_, index) => text(100 + index)),
  );
  const { totals, closes } = await server.status();
  assert.ok(totals.dropped > 1_000, `${totals.dropped} were dropped for the slow ones`);
  assert.equal(totals.open, 2_201, JSON.stringify(closes));
  // The slow ones get the newest when they read on: whole messages, in order, with a gap.
  for (const { socket } of slow) socket.resume();
  const last = `${text(100 + MESSAGES - 1)}\n`;
  for (const peer of slow) await until("the last message", () => peer.text.endsWith(last));
  for (const peer of slow) {
    const numbers = peer.text
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((line) => Number(line.split(" ")[1]));
    assert.ok(numbers.length < MESSAGES && numbers.every((number, at) => at === 0 || number > (numbers[at - 1] ?? 0)));
  }
  waits.sort((a, b) => a - b);
  t.diagnostic(
    `${MESSAGES} messages of ${size} bytes to 2,200: all fast ones had each after p50 ${waits[MESSAGES >> 1]?.toFixed(0)} ms, ` +
      `p99 ${waits[Math.floor(MESSAGES * 0.99)]?.toFixed(0)} ms; dropped for the slow ${totals.dropped}`,
  );
  for (const { socket } of [...fast, ...slow, speaker]) socket.destroy();
  t.diagnostic(await footprint.calm());
});

test("a deploy disconnects no slow subscriber: what waits for a hundred of them moves once", async (t) => {
  const { server, port } = await startRoom(
    t,
    "workers: 1\nlimits: { bufferMemory: 32MiB }\nsocket: { sendBuffer: 16KiB }\n",
  );
  const footprint = await watchFootprint(t, server, { memory: 96 * MiB, held: 24 * MiB });
  const slow = await Promise.all(Array.from({ length: 100 }, () => openPeer(t, port)));
  for (const peer of slow) peer.write("+feed\n");
  for (const peer of slow) await peer.receives("subscribed\n".length);
  for (const { socket } of slow) socket.pause();
  const speaker = await openClient(t, port);
  const large = "x".repeat(30_000);
  const [worker] = (await server.status()).workers;
  for (let number = 100; number < 300; number++) {
    assert.equal(await ask(speaker, `feed ${number} ${large}\npid`), String(worker?.pid));
  }
  const { dropped } = (await server.status()).totals;
  assert.ok(dropped > 0);
  const { code, stderr } = await server.command("reload", "--replace", "--wait", "--control", server.control);
  assert.equal(code, 0, stderr);
  await until("all have moved", async () => (await server.status()).draining.length === 0);
  const { totals, closes } = await server.status();
  assert.equal(totals.open, 101, JSON.stringify(closes));
  assert.ok(totals.bytesHeldIn < 2 * MiB, `${totals.bytesHeldIn} bytes`);
  for (const { socket } of slow) socket.resume();
  for (const peer of slow) {
    await until("the last message", () => peer.text.endsWith(`feed 299 ${large}\n`));
    const numbers = peer.text
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((line) => Number(line.split(" ")[1]));
    assert.deepEqual(
      numbers.slice(-32),
      Array.from({ length: 32 }, (_, at) => 268 + at),
    );
  }
  for (const { socket } of [...slow, speaker]) socket.destroy();
  t.diagnostic(await footprint.calm());
});
