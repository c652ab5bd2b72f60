/** What speaks of a connection that is gone never touches the one that has its slot or its descriptor now. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openLoopback, type Recorder } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

test("stale records meet a recycled slot and descriptor: nothing reaches the new connection", async (t) => {
  const loopback = openLoopback(t);
  const { engine } = loopback;
  const first = await openPeer(t, loopback.port);
  const old = await loopback.nth(0);
  first.end();
  await until("the end", () => old.ended);
  old.close();
  await until("the slot to be free", () => engine.open === 0);
  const second = await openPeer(t, loopback.port);
  const fresh = await loopback.nth(1);
  assert.equal(fresh.slot, old.slot, "the slot is used again");
  assert.notEqual(fresh.generation, old.generation);

  old.send("meant for the first");
  engine.sendLarge(old.slot, old.generation, Buffer.from("meant for the first, too"));
  engine.notifyBelow(old.slot, old.generation, 1000);
  old.pause();
  engine.flush();
  engine.finish(old.slot, old.generation);
  engine.flush();
  assert.throws(() => engine.release(old.slot, old.generation));
  assert.deepEqual(engine.peer(old.slot, old.generation), { host: "", port: 0 });

  fresh.send("for the second");
  second.write("hello");
  await until("hello", () => fresh.text === "hello");
  await second.receives(14);
  assert.equal(second.text, "for the second");
  assert.equal(second.ended, false);
  assert.equal(first.length, 0);
  assert.deepEqual(fresh.events, ["open", "data"]);
  assert.equal(fresh.unsent, 0, "stale sends are not counted as unsent by the new connection");
});

test("stale close and reset do not end the new connection", async (t) => {
  const loopback = openLoopback(t);
  const { engine } = loopback;
  const first = await openPeer(t, loopback.port);
  const old = await loopback.nth(0);
  first.reset();
  await until("the error", () => old.errno);
  old.close();
  await until("the slot to be free", () => engine.open === 0);
  const second = await openPeer(t, loopback.port);
  const fresh = await loopback.nth(1);
  assert.equal(fresh.slot, old.slot);
  // engine.close() forgets the owner as well: the caller's word. The records are what must not take effect.
  old.close();
  old.reset();
  engine.flush();
  assert.equal(engine.open, 1);
  fresh.send("alive");
  await second.receives(5);
  assert.equal(second.ended, false);
});

test("a slot that changes hands inside a round hears nothing of its last connection", async (t) => {
  const loopback = openLoopback(t);
  const { engine } = loopback;
  let successor: Recorder | undefined;
  loopback.on = (recorder) => ({
    onWritable() {
      // This round also has a data record of this slot. Giving the slot up and flushing frees it at once.
      recorder.reset();
      engine.flush();
      successor = loopback.connect(unreachable.port);
    },
  });
  const unreachable = openLoopback(t, { accepting: false });
  const peer = await openPeer(t, loopback.port);
  const served = await loopback.nth(0);
  // Both are ready when the next round begins: the mark is passed already, and the bytes are in the kernel.
  peer.write("of the old connection");
  engine.notifyBelow(served.slot, served.generation, 1);
  await until("the successor", () => successor?.opened);
  assert.equal(successor?.text, "");
  assert.deepEqual(successor?.events, ["open"]);
});

test("sends, closes and new connections at random: each byte reaches its own peer", async (t) => {
  const loopback = openLoopback(t);
  loopback.on = (recorder) => ({
    onData: (input, from, to) => {
      recorder.send(Buffer.from(input.subarray(from, to)));
      recorder.close();
    },
  });
  const clients: { recorder: Recorder; text: string }[] = [];
  const total = 2_000;
  const open = (): void => {
    if (clients.length >= total) return;
    const text = `message ${clients.length}`;
    const recorder = loopback.connect(loopback.port, (self) => ({
      onOpen: () => self.send(text),
      onEnd: () => {
        self.close();
        open();
      },
    }));
    clients.push({ recorder, text });
  };
  for (let i = 0; i < 50; i++) open();
  await until("all to be answered", () => clients.length === total && clients.every(({ recorder }) => recorder.ended));
  for (const { recorder, text } of clients) assert.equal(recorder.text, text);
  await until("the slots to be free", () => loopback.engine.open === 0);
});
