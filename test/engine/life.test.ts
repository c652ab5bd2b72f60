/** A connection from accept to its end, on either side. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { errnoName } from "#src/os/errno.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { openLoopback, PLAIN_OPTIONS, Recorder } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

test("accepted, received, answered: byte for byte, with the peer's address and counters", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  assert.deepEqual(served.events, ["open"]);
  assert.deepEqual(loopback.engine.peer(served.slot, served.generation), {
    host: "127.0.0.1",
    port: peer.socket.localPort,
  });
  peer.write("hello");
  await until("hello", () => served.text === "hello");
  served.send("good day");
  await peer.receives(8);
  assert.equal(peer.text, "good day");
  const [received, sent] = loopback.engine.counters.subarray(served.slot * 4, served.slot * 4 + 2);
  assert.deepEqual([received, sent], [5, 8]);
  assert.equal(served.unsent, 0);
});

test("the peer's FIN: it may still receive; closing then ends both", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  peer.write("last words");
  peer.end();
  await until("the end", () => served.ended);
  assert.deepEqual(served.events, ["open", "data", "end"]);
  served.send("heard");
  await peer.receives(5);
  assert.equal(peer.ended, false);
  served.close();
  await until("FIN", () => peer.closed);
  assert.equal(peer.error, undefined);
  assert.equal(loopback.engine.open, 0);
});

test("finish: FIN after what is unsent, and receiving goes on", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.send("a");
  served.finish();
  await until("FIN", () => peer.ended);
  assert.equal(peer.text, "a");
  peer.write("still here");
  await until("bytes after FIN", () => served.text === "still here");
  peer.end();
  await until("the end", () => served.ended);
  served.close();
  await until("the slot to be free", () => loopback.engine.open === 0);
});

test("close: everything unsent arrives, then FIN, though the peer keeps sending", async (t) => {
  const loopback = openLoopback(t, { socket: { sendBuffer: 32_768 } });
  const peer = await openPeer(t, loopback.port, { paused: true });
  const served = await loopback.nth(0);
  const message = Buffer.alloc(2 << 20, "m");
  served.send(message);
  served.close();
  for (let i = 0; i < 50; i++) peer.write(Buffer.alloc(10_000, "noise"));
  peer.socket.resume();
  await until("FIN", () => peer.ended);
  assert.equal(peer.length, message.length);
  assert.equal(peer.error, undefined);
  peer.end();
  await until("the slot to be free", () => loopback.engine.open === 0);
});

test("close: a peer that does not take the rest is reset when the time is up", async (t) => {
  const loopback = openLoopback(t, { socket: { sendBuffer: 16_384 } });
  const client = loopback.connect();
  client.pause();
  const served = await loopback.nth(0);
  served.send(Buffer.alloc(16 << 20));
  served.close(100);
  await until("the reset", () => client.errno);
  assert.equal(errnoName(client.errno), "ECONNRESET");
  client.close();
  await until("the slots to be free", () => loopback.engine.open === 0);
});

test("close: a peer that never closes its side holds the slot for about a second only", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  (await loopback.nth(0)).close();
  await until("FIN", () => peer.ended);
  await until("the slot to be free", () => loopback.engine.open === 0);
});

test("reset: RST, and nothing unsent arrives", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  served.send("never seen");
  served.reset();
  await until("the reset", () => peer.closed);
  assert.equal(peer.error, "ECONNRESET");
  assert.equal(peer.length, 0);
  assert.equal(loopback.engine.open, 0);
});

test("the peer's RST is an error; the slot waits for close, then is free", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  peer.reset();
  await until("the error", () => served.errno);
  assert.equal(errnoName(served.errno), "ECONNRESET");
  assert.equal(loopback.engine.open, 1);
  served.send("into the void");
  served.close();
  await until("the slot to be free", () => loopback.engine.open === 0);
  assert.deepEqual(served.events, ["open", "error"]);
});

test("bytes before RST or FIN are delivered first, however much there is", async (t) => {
  const loopback = openLoopback(t, { accepting: false });
  const peer = await openPeer(t, loopback.port);
  const served = new Recorder(loopback.engine);
  const bytes = Buffer.alloc(300_000, "abcdefg");
  loopback.engine.listen(0, 0, loopback.fd, { onAccept: () => served, onAcceptError: () => {} });
  peer.write(bytes);
  peer.end();
  await until("the end", () => served.ended);
  assert.ok(served.bytes.equals(bytes));
  assert.deepEqual(served.events.slice(-2), ["data", "end"]);
});

test("a peer that has sent FIN and then resets is reported", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  peer.end();
  await until("the end", () => served.ended);
  peer.reset();
  await until("the error", () => served.errno);
});

test("connect: open, talk, close; refused: an error and no open", async (t) => {
  const loopback = openLoopback(t);
  const client = loopback.connect();
  client.send("sent before it was connected");
  const served = await loopback.nth(0);
  await until("the bytes", () => served.text === "sent before it was connected");
  await until("open", () => client.opened);
  assert.deepEqual(loopback.engine.peer(client.slot, client.generation), { host: "127.0.0.1", port: loopback.port });
  served.send("hello");
  await until("hello", () => client.text === "hello");
  client.close();
  await until("the end", () => served.ended);
  served.close();
  await until("the slots to be free", () => loopback.engine.open === 0);

  const unused = createServer().listen(0, "127.0.0.1");
  await until("a port", () => unused.address());
  const { port } = unused.address() as { port: number };
  await new Promise((resolve) => unused.close(resolve));
  const refused = loopback.connect(port);
  await until("the error", () => refused.errno);
  assert.equal(errnoName(refused.errno), "ECONNREFUSED");
  assert.deepEqual(refused.events, ["error"]);
  refused.close();
  await until("the slot to be free", () => loopback.engine.open === 0);
});

test("connect: from a chosen local address; one that is not ours fails at once", async (t) => {
  const loopback = openLoopback(t);
  const { engine, port } = loopback;
  const client = new Recorder(engine);
  client.slot = engine.connect("127.0.0.1", port, "127.0.0.77", PLAIN_OPTIONS, client);
  const served = await loopback.nth(0);
  assert.equal(engine.peer(served.slot, served.generation).host, "127.0.0.77");
  assert.equal(errnoName(engine.connect("127.0.0.1", port, "192.0.2.1", PLAIN_OPTIONS, client)), "EADDRNOTAVAIL");
});

test("connect: closed before the outcome is known, nothing is heard and nothing leaks", async (t) => {
  const loopback = openLoopback(t, { accepting: false });
  const before = openDescriptors();
  const client = loopback.connect();
  client.reset();
  const other = loopback.connect();
  other.close();
  await until("the slots to be free", () => loopback.engine.open === 0);
  assert.deepEqual([client.events, other.events], [[], []]);
  await sameDescriptors(before);
});
