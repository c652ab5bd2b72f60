/** The whole path over real sockets: openServer as a worker uses it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import type { CloseReason } from "#src/base/reasons.js";
import { line } from "#src/codec/line.js";
import { BUILTIN_SERVICES } from "#src/service/builtins.js";
import type { Connection } from "#src/service/connection.js";
import { type AnyService, defineService } from "#src/service/define.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { openPeer } from "../support/peer.js";
import { moduleUrl, runScript } from "../support/script.js";
import { closesTotal, openServing } from "../support/serving.js";
import { until } from "../support/until.js";

function builtin(name: string): AnyService {
  const service = BUILTIN_SERVICES.get(name);
  assert.ok(service);
  return service;
}

test("thousands of lines in one segment, one line in many segments: all come back, in order", async (t) => {
  const serving = await openServing(t, builtin("echo-line"));
  const peer = await openPeer(t, serving.port);
  const many = Array.from({ length: 5_000 }, (_, i) => `line ${i}\n`).join("");
  peer.write(many);
  await peer.receives(many.length);
  assert.equal(peer.text, many);
  for (const byte of "one byte at a time\n") {
    peer.write(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await peer.receives(many.length + 19);
  assert.equal(serving.figure("requests"), 5_001);
});

test("a frame of the limit, far larger than a round's share, comes back whole; one byte more does not", async (t) => {
  const serving = await openServing(t, builtin("echo-frame"));
  const size = 1 << 20;
  const message = Buffer.alloc(4 + size, "frame");
  message.writeUInt32BE(size);
  const peer = await openPeer(t, serving.port);
  peer.write(message);
  await peer.receives(message.length);
  assert.ok(peer.bytes.equals(message));
  message.writeUInt32BE(size + 1);
  peer.write(message);
  await until("the end", () => peer.ended || peer.closed);
  await until("the count", () => serving.closes()["frame-too-large"] === 1);
});

test("a peer that sends and does not read is held back by TCP, in bounded memory", async (t) => {
  const serving = await openServing(t, builtin("echo-raw"), { timeouts: { writeStall: "off" } });
  const peer = await openPeer(t, serving.port, { paused: true });
  const total = 64 << 20;
  const chunk = Buffer.alloc(1 << 20, "flood");
  let written = 0;
  const before = process.memoryUsage().arrayBuffers;
  while (written < total && peer.socket.writableLength < 8 << 20) {
    peer.write(chunk);
    written += chunk.length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(peer.socket.writableLength > 0, "held back");
  assert.ok(process.memoryUsage().arrayBuffers - before < 40 << 20);
  peer.socket.resume();
  await peer.receives(written);
  assert.equal(peer.length, written);
});

test("write stall: the peer that takes nothing is closed in its time, also with every other deadline off", async (t) => {
  const service = defineService({
    codec: line(),
    onMessage: (_text, { connection }) => {
      for (let i = 0; i < 200; i++) connection.send("x".repeat(100_000));
    },
  });
  const serving = await openServing(t, service, {
    timeouts: { firstByte: "off", frame: "off", idle: "off", writeStall: 300 },
    limits: { buffered: 64 << 20 },
  });
  const peer = await openPeer(t, serving.port, { paused: true });
  peer.write("go\n");
  await until("the close", () => serving.closes()["write-stall"] === 1);
});

/** A peer on a thread of its own: it goes on while this process's event loop stands still. */
function threadPeer(t: Parameters<typeof openPeer>[0], port: number, steps: string): Worker {
  const thread = new Worker(
    `const { parentPort } = require("node:worker_threads");
    const socket = require("node:net").connect({ port: ${port}, host: "127.0.0.1", noDelay: true });
    socket.on("error", () => {});
    socket.on("data", (data) => parentPort.postMessage(data.toString()));
    socket.on("close", () => parentPort.postMessage("closed"));
    ${steps}`,
    { eval: true },
  );
  t.after(() => thread.terminate());
  return thread;
}

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test("while this worker's loop stands still, a peer that is in time is not closed for being late", async (t) => {
  let opened = 0;
  const service = defineService({ codec: line(), onOpen: () => void opened++, onMessage: (text) => text });
  const serving = await openServing(t, service, {
    timeouts: { firstByte: 200, frame: 200, idle: 300, writeStall: "off" },
  });
  const thread = threadPeer(t, serving.port, `parentPort.once("message", () => socket.write("in time\\n"));`);
  await until("the connection", () => opened === 1);
  const answer = once(thread, "message");
  thread.postMessage("now");
  standStill(600);
  assert.deepEqual(await answer, ["in time\n"]);
});

test("dribbling does not extend the frame deadline, however busy the worker is", async (t) => {
  const serving = await openServing(t, builtin("echo-line"), {
    timeouts: { firstByte: "off", frame: 300, idle: "off", writeStall: "off" },
  });
  threadPeer(t, serving.port, `socket.setNoDelay(true); setInterval(() => socket.write("x"), 1);`);
  await until("the first byte", () => serving.figure("opened") === 1);
  // Between two rounds more bytes always arrive.
  const start = performance.now();
  while (performance.now() - start < 4_000 && closesTotal(serving) === 0) {
    standStill(20);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(serving.closes(), { "frame-timeout": 1 });
});

test("stop: in flight is answered, the rest says goodbye, and everything ends with a reason that the service sees", async (t) => {
  const before = openDescriptors();
  const reasons: CloseReason[] = [];
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    onMessage: (text): Promise<string> =>
      new Promise((resolve) => {
        release = () => resolve(text);
      }),
    onDraining: () => "goodbye",
    onClose: (_connection, reason) => void reasons.push(reason),
  });
  const serving = await openServing(t, service);
  const busy = await openPeer(t, serving.port);
  const idle = await openPeer(t, serving.port);
  busy.write("job\n");
  await until("the job", () => release && serving.figure("active") === 2);
  const stopped = serving.server.stop({ drainMs: 10_000 });
  await until("goodbyes", () => idle.ended && busy.text === "goodbye\n");
  release?.();
  await until("the answer", () => busy.ended);
  assert.equal(busy.text, "goodbye\njob\n");
  busy.end();
  idle.end();
  assert.deepEqual(await stopped, { closed: 2, forced: 0 });
  assert.deepEqual(reasons, ["drain", "drain"]);
  assert.deepEqual(serving.closes(), { drain: 2 });
  const refused = connect(serving.port, "127.0.0.1");
  t.after(() => refused.destroy());
  busy.socket.destroy();
  idle.socket.destroy();
  refused.destroy();
  await until("descriptors", () => openDescriptors().length <= before.length + 4);
});

test("stop at its deadline: who is still there is reset, and counted and told like everyone else", async (t) => {
  const reasons: CloseReason[] = [];
  const service = defineService({
    codec: line(),
    onMessage: (): Promise<string> => new Promise(() => {}),
    onClose: (_connection, reason) => void reasons.push(reason),
  });
  const serving = await openServing(t, service);
  const peer = await openPeer(t, serving.port);
  peer.write("job\n");
  await until("the job", () => serving.figure("inFlight") === 1);
  const outcome = await serving.server.stop({ drainMs: 250 });
  assert.deepEqual(outcome, { closed: 0, forced: 1 });
  await until("the reset", () => peer.closed);
  assert.equal(peer.error, "ECONNRESET");
  assert.equal(reasons.length, 1, "the service heard of the end");
  assert.equal(serving.figure("active"), 0);
  assert.equal(serving.figure("inFlight"), 0);
  assert.equal(closesTotal(serving), 1);
});

test("abort: timers and promises of the service that come later find a closed connection", async (t) => {
  let connection: Connection<undefined, string | Uint8Array> | undefined;
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    onOpen(opened) {
      connection = opened as Connection<undefined, string | Uint8Array>;
    },
    onMessage: (text): Promise<string> =>
      new Promise((resolve) => {
        release = () => resolve(text);
      }),
  });
  const serving = await openServing(t, service);
  const peer = await openPeer(t, serving.port);
  peer.write("job\n");
  await until("the job", () => release);
  serving.server.abort();
  release?.();
  await until("the reset", () => peer.closed);
  assert.equal(connection?.closed, true);
  assert.equal(connection?.send("late"), "closed");
  assert.equal(serving.figure("active"), 0);
});

test("closeEnv comes once, after the last connection, and one that never ends does not keep the worker", async (t) => {
  for (const hang of [false, true]) {
    const events: string[] = [];
    const service = defineService({
      codec: line(),
      env: () => "database",
      onMessage: (text) => text,
      onClose: (_connection, reason) => void events.push(reason),
      closeEnv: (env): Promise<void> => {
        events.push(`close ${env}`);
        return hang ? new Promise(() => {}) : Promise.resolve();
      },
    });
    const serving = await openServing(t, service);
    const peer = await openPeer(t, serving.port);
    peer.write("a\n");
    await peer.receives(2);
    await serving.server.stop({ drainMs: 1_500 });
    assert.deepEqual(events, ["drain", "close database"]);
  }
});

test("a service whose env fails: openServer rejects and keeps nothing open, so that the process can end", async (t) => {
  const outcome = await runScript(
    t,
    `
    import { openServing } from ${JSON.stringify(new URL("../support/serving.js", import.meta.url).href)};
    import { defineService } from ${moduleUrl("#src/service/define.js")};
    import { line } from ${moduleUrl("#src/codec/line.js")};
    const service = defineService({
      codec: line(),
      env() { throw new Error("no database"); },
      onMessage() {},
    });
    const ends = [];
    await openServing({ after: (end) => ends.push(end) }, service).catch((error) => console.log(error.message));
    for (const end of ends) end();
    `,
  );
  assert.deepEqual(outcome, { code: 0, signal: null, stdout: "no database\n", stderr: "" });
});

test("the cap: connections past it are reset and counted, and the count is exact when they go", async (t) => {
  const serving = await openServing(t, builtin("echo-line"), { connections: 3 });
  const peers = await Promise.all([0, 1, 2].map(() => openPeer(t, serving.port)));
  await until("three", () => serving.figure("active") === 3);
  const rejected = connect(serving.port, "127.0.0.1");
  const [error] = (await once(rejected, "error")) as [NodeJS.ErrnoException];
  assert.equal(error.code, "ECONNRESET");
  assert.equal(serving.admission.count(0), 3);
  assert.equal(serving.scoreboard.block(0).get("rejected"), 1);
  for (const peer of peers) peer.socket.destroy();
  await until("none", () => serving.admission.count(0) === 0 && serving.admission.count(1) === 0);
  const again = await openPeer(t, serving.port);
  again.write("x\n");
  await again.receives(2);
});

test("every descriptor comes back after many connections of every kind of end", async (t) => {
  const before = openDescriptors();
  const serving = await openServing(t, builtin("echo-line"));
  for (let i = 0; i < 100; i++) {
    const peer = await openPeer(t, serving.port);
    peer.write("hello\n");
    if (i % 3 !== 0) await peer.receives(6);
    if (i % 2 === 0) peer.reset();
    else peer.socket.destroy();
  }
  await until("none", () => serving.figure("active") === 0 && serving.figure("opened") === 100);
  assert.equal(closesTotal(serving), 100);
  const own = openDescriptors().filter((each) => !before.includes(each) && /eventpoll|memfd|eventfd|null/.test(each));
  const listening = 1;
  await until("sockets", () => openDescriptors().length === before.length + own.length + listening);
  await serving.server.stop({ drainMs: 100 });
  await sameDescriptors([...before, ...openDescriptors().filter((each) => /memfd|eventfd|socket/.test(each))]);
});
