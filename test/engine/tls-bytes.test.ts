/** The bytes of TLS, however they come: in any pieces, too early, by the megabyte, faster than they are read. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { SlotOwner } from "#src/engine/engine.js";
import { COUNTER } from "#src/engine/layout.js";
import { openLoopback, type Recorder } from "../support/loopback.js";
import { Peer } from "../support/peer.js";
import {
  beginPeer,
  clientContext,
  echo,
  openCutter,
  openPair,
  openSecure,
  openSecurePeer,
  secure,
  secured,
  serverContext,
} from "../support/secured.js";
import { byteByByte } from "../support/splits.js";
import { until } from "../support/until.js";

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`${version}, byte by byte in both directions`, async (t) => {
    const loopback = openSecure(t);
    const port = await openCutter(t, loopback.port, (chunk) => byteByByte(chunk) as Buffer[]);
    const peer = await openSecurePeer(t, port, { minVersion: version, maxVersion: version });
    echo(await loopback.nth(0));
    for (const word of ["one", "and another"]) peer.write(word);
    await peer.receives(14);
    assert.equal(peer.text, "oneand another");
  });
}

test("any pieces, megabytes, both ways, engine to engine", async (t) => {
  const loopback = openSecure(t);
  const cut = (chunk: Buffer): Buffer[] => {
    const pieces: Buffer[] = [];
    for (let at = 0; at < chunk.length; ) {
      const length = 1 + Math.floor(Math.random() ** 4 * chunk.length);
      pieces.push(chunk.subarray(at, at + length));
      at += length;
    }
    return pieces;
  };
  const port = await openCutter(t, loopback.port, cut);
  const context = clientContext();
  const client = loopback.connect(port, (self) => ({
    onOpen: () => secure(self, context, { serverName: "localhost" }),
  }));
  await secured(client);
  const served = await loopback.nth(0);
  await secured(served);
  const there = randomBytes(3 << 20);
  const back = randomBytes((3 << 20) + 1);
  client.send(there);
  served.send(back);
  await until("all of it", () => served.bytes.length === there.length && client.bytes.length === back.length);
  assert.ok(served.bytes.equals(there));
  assert.ok(client.bytes.equals(back));
  assert.equal(client.unsent, 0);
  const counted = (recorder: Recorder, counter: number) =>
    loopback.engine.counters[recorder.slot * COUNTER.words + counter];
  assert.equal(counted(served, COUNTER.received), there.length);
  assert.equal(counted(served, COUNTER.sent), back.length);
  assert.equal(counted(client, COUNTER.received), back.length);
  assert.equal(counted(client, COUNTER.sent), there.length);
});

/** Reads so many bytes itself before it secures the connection with what it read too far. */
function readFirst(self: Recorder, least: number, begin: (early: Buffer) => void): Partial<SlotOwner> {
  let held = Buffer.alloc(0);
  let begun = false;
  return {
    onData(input, from, to) {
      if (begun) return;
      held = Buffer.concat([held, input.subarray(from, to)]);
      self.chunks.length = 0;
      if (held.length < least) return;
      begun = true;
      begin(held);
    },
  };
}

for (const least of [1, 5, 6, 100, 200]) {
  test(`the first bytes, at least ${least}, were read before TLS began`, async (t) => {
    const loopback = openLoopback(t);
    const context = serverContext();
    loopback.on = (self) => readFirst(self, least, (early) => secure(self, context, { early }));
    const port = await openCutter(t, loopback.port, (chunk) => [chunk.subarray(0, 3), chunk.subarray(3)]);
    const peer = await openSecurePeer(t, port);
    const served = echo(await loopback.nth(0));
    peer.write("hello");
    await peer.receives(5);
    assert.equal(served.text, "hello");
  });
}

test("more bytes too early than one turn takes", async (t) => {
  const server = openLoopback(t);
  const context = serverContext();
  let given = 0;
  // A whole conversation is recorded by a server that does not answer before it has it: only garbage is that long.
  server.on = (self) =>
    readFirst(self, 200_000, (early) => {
      given = early.length;
      secure(self, context, { early });
    });
  const socket = (await import("node:net")).connect(server.port, "127.0.0.1");
  t.after(() => socket.destroy());
  const peer = new Peer(socket);
  peer.write(Buffer.alloc(200_000, 0x16));
  const served = await server.nth(0);
  await until("the refusal", () => served.errno);
  assert.ok(given >= 200_000);
});

test("a message of 16 MiB, both ways, and many small ones joined into one", async (t) => {
  const { loopback, peer, served } = await openPair(t);
  const bytes = randomBytes(16 << 20);
  served.send(bytes);
  peer.write(bytes);
  await peer.receives(bytes.length);
  await until("all of it", () => served.bytes.length === bytes.length);
  assert.ok(peer.bytes.equals(bytes));
  assert.ok(served.bytes.equals(bytes));

  const sends = loopback.totals[7] as number;
  let expected = "";
  for (let index = 0; index < 300; index++) {
    // Every second record is another connection's, as in a broadcast: so none is joined in the arena.
    served.send(`message ${index};`);
    loopback.engine.notifyBelow(served.slot, served.generation, 1);
    expected += `message ${index};`;
  }
  await peer.receives(bytes.length + expected.length);
  assert.equal(peer.text.slice(bytes.length), expected);
  assert.ok((loopback.totals[7] as number) - sends <= 6, `${(loopback.totals[7] as number) - sends} sends`);
});

test("a reader that stops: blocked, nothing is lost, and writable again", async (t) => {
  const loopback = openSecure(t, serverContext(), { socket: { sendBuffer: 65_536 } });
  const peer = beginPeer(t, loopback.port);
  const served = await loopback.nth(0);
  await secured(served);
  peer.socket.pause();
  const bytes = randomBytes(8 << 20);
  served.send(bytes);
  await until("blocked", () => served.count("blocked"));
  assert.ok(served.unsent > 1 << 20, `${served.unsent}`);
  loopback.engine.notifyBelow(served.slot, served.generation, 1);
  peer.socket.resume();
  await until("writable", () => served.count("writable"));
  await peer.receives(bytes.length);
  assert.ok(peer.bytes.equals(bytes));
  assert.equal(served.unsent, 0);
});

test("a paused connection holds its peer, and loses nothing", async (t) => {
  const { peer, served } = await openPair(t, { server: { socket: { receiveBuffer: 65_536 } } });
  served.pause();
  const bytes = randomBytes(16 << 20);
  let flushed = false;
  peer.socket.write(bytes, () => {
    flushed = true;
  });
  await until("the peer's writes wait", () => peer.socket.bytesWritten > 0 && peer.socket.writableLength > 0);
  const held = served.bytes.length;
  assert.equal(flushed, false);
  assert.ok(held < 1 << 20, `${held}`);
  served.resume();
  await until("all of it", () => served.bytes.length === bytes.length);
  assert.ok(served.bytes.equals(bytes));
});
