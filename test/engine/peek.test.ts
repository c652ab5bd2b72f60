/** What a connection would read, asked of the kernel without reading it: as a client asks before it uses one again. */
import assert from "node:assert/strict";
import { constants } from "node:os";
import { test } from "node:test";
import { PEEKED } from "#src/engine/layout.js";
import { openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

test("nothing, bytes, the end: each is seen and left where it is", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  const peek = (): number => loopback.engine.peek(served.slot, served.generation);
  assert.equal(peek(), PEEKED.quiet);
  served.pause();
  loopback.engine.flush();
  peer.write("hello");
  await until("the bytes", () => peek() === PEEKED.bytes);
  assert.equal(served.text, "");
  served.resume();
  await until("them to be read", () => served.text === "hello");
  assert.equal(peek(), PEEKED.quiet);
  peer.end();
  await until("the end", () => peek() === PEEKED.end);
  await until("its report", () => served.ended);
  assert.equal(peek(), PEEKED.end);
});

test("a connection that has failed, or is nobody's any more", async (t) => {
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  const { slot, generation } = served;
  peer.reset();
  await until("the error", () => served.errno);
  assert.equal(loopback.engine.peek(slot, generation), -constants.errno.ENOTCONN);
  served.close();
  loopback.engine.flush();
  assert.equal(loopback.engine.peek(slot, generation), -constants.errno.EBADF);
});
