import assert from "node:assert/strict";
import { fstatSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { closeDescriptor, openChannel, sendMessage } from "#src/os/descriptors.js";
import { HandoverChannel } from "#src/primary/handover-channel.js";
import { openDescriptors } from "../support/census.js";
import { openListener } from "../support/loopback.js";
import { until } from "../support/until.js";

function pair(t: TestContext): [HandoverChannel, HandoverChannel] {
  const [a, b] = openChannel();
  const channels: [HandoverChannel, HandoverChannel] = [new HandoverChannel(a), new HandoverChannel(b)];
  t.after(() => {
    for (const channel of channels) channel.close();
  });
  return channels;
}

test("messages come in order, with their descriptors, also when nobody waited yet", async (t) => {
  const [old, fresh] = pair(t);
  const socket = openListener(t);
  await old.send({ type: "sockets" }, [socket]);
  await old.send({ type: "commit" });
  const { fds } = await fresh.receive("sockets", "sockets", 1_000);
  assert.equal(fstatSync(fds[0] ?? -1).ino, fstatSync(socket).ino);
  await fresh.receive("commit", "commit", 1_000);
  for (const fd of fds) closeDescriptor(fd);
});

test("what does not come in time, comes wrong or fails is an error that says so", async (t) => {
  const [old, fresh] = pair(t);
  await assert.rejects(
    old.receive("armed", "the new workers are ready", 10),
    /the new workers are ready: not within 0.01 s/,
  );
  await fresh.send({ type: "accepting" });
  await assert.rejects(old.receive("armed", "x", 1_000), /said "accepting" instead of "armed"/);
  await fresh.send({ type: "failed", message: "worker 0 crashed" });
  await assert.rejects(old.receive("armed", "x", 1_000), /^HeadraceError: worker 0 crashed$/);
});

test("quiet ends in time when nothing is said, and at once when something is", async (t) => {
  const [old, fresh] = pair(t);
  await old.quiet(10);
  const quiet = old.quiet(60_000);
  await fresh.send({ type: "failed", message: "a worker died" });
  await assert.rejects(quiet, /a worker died/);
});

test("the other end's going is an error for whoever waits, an event for whoever listens, and told later too", async (t) => {
  const [old, fresh] = pair(t);
  const waiting = old.receive("armed", "x", 60_000);
  fresh.close();
  await assert.rejects(waiting, /the other generation has gone/);
  await assert.rejects(old.receive("armed", "x", 60_000), /the other generation has gone/);
  await assert.rejects(old.send({ type: "commit" }), /the other generation has gone/);
  let gone = 0;
  old.listen(
    () => {},
    () => gone++,
  );
  assert.equal(gone, 1);
});

test("a stop ends the waiting", async (t) => {
  const [old] = pair(t);
  const stop = new AbortController();
  const waiting = old.receive("armed", "x", 60_000, stop.signal);
  stop.abort();
  await assert.rejects(waiting, /the server stops/);
  await assert.rejects(old.receive("armed", "x", 60_000, stop.signal), /the server stops/);
});

test("hundreds of sockets go through, however slowly they are read", async (t) => {
  const [old, fresh] = pair(t);
  const socket = openListener(t);
  const batches = 40;
  const sent = (async () => {
    for (let batch = 0; batch < batches; batch++) await old.send({ type: "sockets" }, Array(50).fill(socket));
  })();
  let received = 0;
  fresh.listen(
    ({ fds }) => {
      received += fds.length;
      for (const fd of fds) closeDescriptor(fd);
    },
    () => {},
  );
  await sent;
  await until("all", () => received === batches * 50);
});

test("what is no message ends the channel, not this process, and its descriptors are closed", async (t) => {
  const [own, theirs] = openChannel();
  const channel = new HandoverChannel(own);
  t.after(() => {
    channel.close();
    closeDescriptor(theirs);
  });
  const socket = openListener(t);
  const before = openDescriptors();
  const waiting = channel.receive("armed", "x", 60_000);
  assert.equal(sendMessage(theirs, Buffer.from("{not json"), [socket]), "sent");
  await assert.rejects(waiting, /sent something that is no message/);
  assert.equal(channel.open, false);
  assert.deepEqual(openDescriptors(), before);
});
