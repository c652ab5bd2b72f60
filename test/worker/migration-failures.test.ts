/** One of the two workers dies, or talks nonsense, at each point of a move: nobody's connection has two owners. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { line } from "#src/codec/line.js";
import { closeDescriptor, openChannel, sendMessage } from "#src/os/descriptors.js";
import type { Connection } from "#src/service/connection.js";
import { defineService } from "#src/service/define.js";
import { receiveConnections, sendConnections } from "#src/worker/migration.js";
import { writeMemory } from "#src/worker/migration-channel.js";
import { PROTOCOL } from "#src/worker/migration-messages.js";
import type { SendOutcome } from "#src/worker/migration-sender.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { openPeer, type Peer } from "../support/peer.js";
import { openServing, type Serving } from "../support/serving.js";
import { until } from "../support/until.js";
import { Hand, helloOf, move } from "./moving.js";

const log = pino({ level: "silent" });

interface State {
  lines: number;
}

/** Counts lines; writes down which hooks were called. */
function counting(calls: string[] = []) {
  return defineService({
    codec: line(),
    state: (): State => ({ lines: 0 }),
    onMessage: (text, { connection }) => `${++connection.state.lines} ${text}`,
    suspend: ({ state }) => Buffer.from([state.lines]),
    resume({ state, id }, bytes) {
      state.lines = bytes[0] as number;
      calls.push(`resume ${id}`);
    },
    onClose: ({ id, remote }, reason) => void calls.push(`close ${id} ${reason} ${remote.host}`),
  });
}

/** `count` peers that have sent a line, and half of another. */
async function peersOf(t: TestContext, serving: Serving, count: number): Promise<Peer[]> {
  const peers = [];
  for (let i = 0; i < count; i++) peers.push(await openPeer(t, serving.port));
  for (const peer of peers) peer.write("a\nhal");
  for (const peer of peers) await peer.receives(4);
  return peers;
}

async function goOn(peers: readonly Peer[]): Promise<void> {
  for (const peer of peers) peer.write("f\n");
  for (const peer of peers) await peer.receives(11);
  for (const peer of peers) assert.equal(peer.text, "1 a\n2 half\n");
}

/** The test is the worker that the connections come to. */
function asTarget(serving: Serving, room?: number): { hand: Hand; sending: Promise<SendOutcome> } {
  const [there, here] = openChannel();
  const sending = sendConnections({ channel: here, server: serving.server, log, handOff: true });
  const hand = new Hand(there);
  hand.send(helloOf(serving, room));
  return { hand, sending };
}

interface Batch {
  readonly batch: number;
  readonly count: number;
  readonly bytes: number;
  readonly fds: readonly number[];
}

/** Reads batches until they hold so many connections. */
async function batchesOf(hand: Hand, connections: number): Promise<Batch[]> {
  const batches: Batch[] = [];
  for (let left = connections; left > 0; ) {
    const message = await hand.receive();
    if (message.type !== "batch") continue;
    const batch = message as unknown as Batch;
    batches.push(batch);
    left -= batch.count;
  }
  return batches;
}

test("the target dies before it answers: all go on where they are, and their descriptors are no more than before", async (t) => {
  const calls: string[] = [];
  const a = await openServing(t, counting(calls));
  const peers = await peersOf(t, a, 5);
  const before = openDescriptors();
  const { hand, sending } = asTarget(a);
  await batchesOf(hand, 5);
  assert.equal(a.server.connections().length, 0);
  assert.equal(a.server.transit.connections, 5);
  assert.equal(a.admission.count(0), 5, "their places are kept");
  assert.equal(a.figure("active"), 5);
  for (const peer of peers) peer.write("f\n");
  hand.close();
  const { moved, kept, cut } = await sending;
  assert.deepEqual({ moved, kept, cut }, { moved: 0, kept: 5, cut: true });
  for (const peer of peers) await peer.receives(11);
  for (const peer of peers) assert.equal(peer.text, "1 a\n2 half\n");
  assert.equal(calls.filter((call) => call.startsWith("resume")).length, 5);
  assert.equal(a.admission.count(0), 5);
  assert.equal(a.server.transit.connections, 0);
  await sameDescriptors(before);
  for (const peer of peers) peer.end();
  await until("all closed", () => a.closes()["peer-closed"] === 5 && a.admission.count(0) === 0);
});

test("the target dies after it answered for some: those are its own, the others go on", async (t) => {
  const a = await openServing(t, counting());
  const peers = await peersOf(t, a, 6);
  const { hand, sending } = asTarget(a);
  // The first of each batch is refused, the second answered, the rest not.
  const batches = await batchesOf(hand, 6);
  const answered = batches.filter(({ count }) => count > 1);
  for (const { batch } of answered) {
    hand.send({ type: "ack", batch, from: 0, count: 1, refused: [0] });
    hand.send({ type: "ack", batch, from: 1, count: 1, refused: [] });
  }
  const lost = answered.length;
  assert.ok(lost > 0);
  hand.close();
  const { moved, kept } = await sending;
  assert.deepEqual({ moved, kept }, { moved: lost, kept: 6 - lost });
  await until("some lost", () => peers.filter((peer) => peer.ended || peer.closed).length === lost);
  await goOn(peers.filter((peer) => !peer.ended && !peer.closed));
  assert.equal(a.figure("active"), 6 - lost);
  assert.equal(a.admission.count(0), 6 - lost);
  assert.deepEqual(a.closes(), {}, "what has moved has no reason");
});

test("the target dies with messages unread: its answers count all the same", async (t) => {
  const a = await openServing(t, counting());
  const peers = await peersOf(t, a, 70);
  const { hand, sending } = asTarget(a);
  const [first] = await batchesOf(hand, 1);
  assert.ok(first && first.count < 70);
  const { batch, count } = first;
  await until("more batches", () => a.server.transit.connections === 70);
  // Nothing runs between the answer and the end: the sender finds both at once, and an error in front of them.
  hand.send({ type: "ack", batch, from: 0, count, refused: [] });
  hand.close();
  const { moved, kept } = await sending;
  assert.deepEqual({ moved, kept }, { moved: count, kept: 70 - count });
  await until("the lost ones", () => peers.filter((peer) => peer.ended || peer.closed).length === count);
  await goOn(peers.filter((peer) => !peer.ended && !peer.closed));
});

test("answers that are not understood: nobody knows who has the connections, so the source lets go of them", async (t) => {
  for (const nonsense of [{ type: "ack", batch: 7, from: 0, count: 1, refused: [] }, { type: "what" }]) {
    const a = await openServing(t, counting());
    const peers = await peersOf(t, a, 3);
    const { hand, sending } = asTarget(a);
    await batchesOf(hand, 3);
    hand.send(nonsense);
    await until("the end", async () => (await hand.receive()).type === "end");
    hand.close();
    const { moved, kept } = await sending;
    assert.deepEqual({ moved, kept }, { moved: 3, kept: 0 });
    for (const peer of peers) await until("lost", () => peer.ended || peer.closed);
    assert.equal(a.admission.count(0), 0);
  }
});

test("a worker of another version, one that says nothing sensible and one that goes at once: nothing moves", async (t) => {
  const a = await openServing(t, counting());
  const peers = await peersOf(t, a, 2);
  for (const say of [{ ...helloOf(a), version: PROTOCOL + 1 }, { type: "what" }, undefined]) {
    const [there, here] = openChannel();
    const sending = sendConnections({ channel: here, server: a.server, log, handOff: true });
    const hand = new Hand(there);
    if (say) hand.send(say);
    if (say && "version" in say) await until("the end", async () => (await hand.receive()).type === "end");
    hand.close();
    const { moved, kept } = await sending;
    assert.deepEqual({ moved, kept }, { moved: 0, kept: 2 });
  }
  await goOn(peers);
});

test("the peer resets a connection that is on its way: it ends where it comes back to, with everything known", async (t) => {
  const calls: string[] = [];
  const a = await openServing(t, counting(calls));
  const [peer] = await peersOf(t, a, 1);
  const { hand, sending } = asTarget(a);
  await batchesOf(hand, 1);
  peer?.reset();
  await until("the reset", () => peer?.closed);
  hand.close();
  await sending;
  await until("the end", () => a.closes()["peer-reset"] === 1);
  assert.match(calls.join("\n"), /^resume (\S+)\nclose \1 peer-reset 127\.0\.0\.1$/);
});

test("aborted, or stopped at its deadline, while connections are on their way: nothing is left", async (t) => {
  for (const how of ["abort", "stop"] as const) {
    const sockets = (): number => openDescriptors().filter((each) => each.includes("socket:")).length;
    const before = sockets();
    const a = await openServing(t, counting());
    const peers = await peersOf(t, a, 3);
    const { hand, sending } = asTarget(a);
    await batchesOf(hand, 3);
    if (how === "abort") a.server.abort();
    else assert.deepEqual(await a.server.stop({ drainMs: 300 }), { closed: 0, forced: 3 });
    hand.close();
    const { moved, kept } = await sending;
    assert.deepEqual({ moved, kept }, { moved: 0, kept: 0 });
    for (const peer of peers) {
      await until("the end", () => peer.ended || peer.closed);
      peer.socket.destroy();
    }
    assert.equal(a.figure("active"), 0);
    // The listening socket is the test's.
    await until("descriptors", () => sockets() === before + 1);
  }
});

test("stopped while a connection is on its way that comes back: it is drained like the others", async (t) => {
  const a = await openServing(t, counting());
  const [peer] = await peersOf(t, a, 1);
  const { hand, sending } = asTarget(a);
  await batchesOf(hand, 1);
  const stopped = a.server.stop({ drainMs: 3_000 });
  let over = false;
  void stopped.finally(() => {
    over = true;
  });
  const started = a.server.engine.now;
  await until("the grace", () => a.server.engine.now - started > 250);
  assert.equal(over, false, "it is waited for");
  hand.close();
  await sending;
  // Half a line is held: the drain waits for the rest of it.
  peer?.write("f\n");
  await until("the end", () => peer?.ended);
  assert.equal(peer?.text, "1 a\n2 half\n");
  peer?.end();
  await stopped;
  assert.deepEqual(a.closes(), { drain: 1 });
});

test("a worker that is told to stop takes no connections: they stay", async (t) => {
  const a = await openServing(t, counting());
  const b = await openServing(t, counting(), { beside: a });
  const peers = await peersOf(t, a, 2);
  void b.server.stop({ drainMs: 1_500 });
  const { moved, kept } = await move(a, b);
  assert.deepEqual({ moved, kept }, { moved: 0, kept: 2 });
  await goOn(peers);
});

// ---- the test stands between the two, and is the target of one and the source of the other ----

interface Between {
  readonly source: Hand;
  readonly sending: Promise<SendOutcome>;
  readonly target: Hand;
  /** The target's own end, for tests that fill it. */
  readonly targetEnd: number;
  readonly receiving: Promise<{ readonly moved: number }>;
  /** Passes the batches on. */
  readonly pass: () => void;
}

async function between(from: Serving, to: Serving, connections: number): Promise<Between> {
  const { hand: source, sending } = asTarget(from);
  const batches = await batchesOf(source, connections);
  const [targetEnd, here] = openChannel();
  const receiving = receiveConnections({ channel: targetEnd, server: to.server, log });
  const target = new Hand(here);
  target.send(helloOf(from));
  await until("the hello", async () => (await target.receive()).type === "hello");
  const pass = (): void => {
    for (const { batch, count, bytes, fds } of batches) {
      assert.equal(target.send({ type: "batch", batch, count, bytes }, fds), "sent");
    }
  };
  return { source, sending, target, targetEnd, receiving, pass };
}

test("the source dies after the answer was sent: the target has them", async (t) => {
  const a = await openServing(t, counting());
  const b = await openServing(t, counting(), { beside: a });
  const peers = await peersOf(t, a, 3);
  const { source, sending, target, receiving, pass } = await between(a, b, 3);
  pass();
  const answers: object[] = [];
  while (b.figure("active") < 3) answers.push(await target.receive());
  target.close();
  assert.deepEqual(await receiving, { moved: 3 });
  // The real source would be dead: here it has to let go.
  for (const answer of answers) source.send(answer);
  source.close();
  assert.equal((await sending).moved, 3);
  await goOn(peers);
  assert.equal(b.admission.count(0), 3);
  assert.equal(b.figure("active"), 3);
  assert.equal(b.figure("opened"), 0);
});

for (const how of ["has closed the channel", "does not take the answer"] as const) {
  test(`the source ${how}: the target reads and writes nothing, and lets go`, async (t) => {
    const calls: string[] = [];
    const service = defineService({
      codec: line(),
      onMessage: (text) => `${text}!`,
      resume(connection: Connection<undefined, string | Uint8Array>) {
        calls.push("resume");
        connection.send("here");
      },
      onClose: (_connection, reason) => void calls.push(reason),
    });
    const a = await openServing(t, service);
    const b = await openServing(t, service, { beside: a });
    const peer = await openPeer(t, a.port);
    peer.write("a\n");
    await peer.receives(3);
    const before = openDescriptors().length;
    const { source, sending, target, targetEnd, receiving, pass } = await between(a, b, 1);
    peer.write("b\n");
    if (how === "does not take the answer") {
      while (sendMessage(targetEnd, Buffer.alloc(1_000), []) === "sent");
    }
    pass();
    if (how === "has closed the channel") target.close();
    assert.deepEqual(await receiving, { moved: 0 });
    if (how === "does not take the answer") target.close();
    assert.deepEqual(calls, ["resume", "server-close"], "whoever resumed it there hears of its end");
    assert.equal(b.server.connections().length, 0);
    assert.equal(b.figure("active"), 0);
    assert.equal(a.admission.count(0), 1);
    assert.equal(peer.text, "a!\n");
    source.close();
    assert.equal((await sending).kept, 1);
    await peer.receives(6);
    assert.equal(peer.text, "a!\nb!\n", "the line that came meanwhile was left for its owner");
    await until("descriptors", () => openDescriptors().length === before);
  });
}

test("batches that make no sense: nothing is taken, nothing stays open, and the worker serves on", async (t) => {
  const a = await openServing(t, counting());
  const peers = await peersOf(t, a, 1);
  const before = openDescriptors().length;
  const memory = (bytes: number): number => writeMemory([Buffer.alloc(bytes, 7)], bytes);
  const nonsense: [object, () => number[]][] = [
    [{ type: "batch", batch: 0, count: 1, bytes: 500 }, () => [memory(500), memory(1)]],
    [{ type: "batch", batch: 0, count: 1, bytes: 500 }, () => [memory(400), memory(1)]],
    [{ type: "batch", batch: 0, count: 3, bytes: 500 }, () => [memory(500), memory(1)]],
    [{ type: "batch", batch: 0, count: 0, bytes: 1 }, () => []],
    [{ type: "handOff", endpoint: 9, bytes: 5 }, () => [memory(5)]],
    [{ type: "what" }, () => [memory(5)]],
  ];
  for (const [message, descriptors] of nonsense) {
    const [there, here] = openChannel();
    const receiving = receiveConnections({ channel: there, server: a.server, log });
    const hand = new Hand(here);
    hand.send(helloOf(a));
    const fds = descriptors();
    hand.send(message, fds);
    for (const fd of fds) closeDescriptor(fd);
    assert.deepEqual(await receiving, { moved: 0 });
    hand.close();
  }
  await until("descriptors", () => openDescriptors().length === before);
  await goOn(peers);
});
