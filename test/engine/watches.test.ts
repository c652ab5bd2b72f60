/** One listener, many sockets: a worker that serves its siblings' slots, and sockets that several workers share. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { Acceptor, Engine } from "#src/engine/engine.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { accept, openEngine, openListener, openLoopback, PLAIN_OPTIONS, Recorder } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { moduleUrl, runScript } from "../support/script.js";
import { until } from "../support/until.js";

const ROUNDS = WORKER_FIELDS.indexOf("rounds");
const ACCEPTS_PER_ROUND = 64;

/** Counts what it accepts. */
class Counter implements Acceptor {
  accepted = 0;
  onAccept(): Recorder {
    this.accepted += 1;
    return new Recorder(undefined as never);
  }
  onAcceptError(): void {}
}

/** Connects `count` times and waits until the kernel has put them all in the queue of `fd`. */
async function fillQueue(engine: Engine, fd: number, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const recorder = new Recorder(engine);
    check(engine.connect("127.0.0.1", boundPort(fd), "", PLAIN_OPTIONS, recorder), "connect");
  }
  await until("a full queue", () => addon().socketQueue(fd) === count);
}

test("many sockets of one listener, each with its number, the highest included", async (t) => {
  const engine = openEngine(t, { slots: 64 });
  const heard: number[] = [];
  const acceptor = (listener: number): Acceptor => ({
    onAccept: () => {
      heard.push(listener);
      return new Recorder(engine);
    },
    onAcceptError: () => {},
  });
  const fds = [0, 1, 64, 5_000, 16_383].map((watch, index) => {
    const fd = openListener(t);
    engine.listen(watch, index % 2 === 0 ? 3 : 63, fd, acceptor(index % 2 === 0 ? 3 : 63));
    return fd;
  });
  for (const fd of fds) await openPeer(t, boundPort(fd));
  await until("all", () => heard.length === fds.length);
  assert.deepEqual(
    heard.toSorted((a, b) => a - b),
    [3, 3, 3, 63, 63],
  );
  const spare = openListener(t);
  const refused = { code: "system" };
  assert.throws(() => engine.listen(16_384, 0, spare, acceptor(0)), refused);
  assert.throws(() => engine.listen(-1, 0, spare, acceptor(0)), refused);
  assert.throws(() => engine.listen(7, 64, spare, acceptor(0)), refused);
  assert.throws(() => engine.listen(7, -1, spare, acceptor(0)), refused);
  assert.throws(() => engine.listen(64, 0, spare, acceptor(0)), refused, "the number is taken");
  assert.throws(() => engine.listen(7, 0, fds[0] as number, acceptor(0)), refused, "the descriptor is watched");
  engine.listen(7, 0, spare, acceptor(0));
  for (const watch of [-1, 8, 16_384, 1 << 30]) engine.unlisten(watch, { queued: true });
});

test("unlisten: what waits is left in the queue, or accepted first, also more than one round takes", async (t) => {
  const loopback = openLoopback(t, { accepting: false, slots: 1_024 });
  const { engine, fd } = loopback;
  const count = 3 * ACCEPTS_PER_ROUND + 5;
  await fillQueue(openEngine(t, { slots: 1_024 }), fd, count);
  accept(loopback);
  engine.unlisten(0, { queued: false });
  assert.equal(loopback.accepted.length, 0);
  assert.equal(addon().socketQueue(fd), count);
  accept(loopback);
  engine.unlisten(0, { queued: true });
  assert.equal(loopback.accepted.length, count);
  assert.equal(addon().socketQueue(fd), 0);
  engine.unlisten(0, { queued: true });
});

test("unlistened by an accept of the same round: the rest of that round is still handed over, the socket is not read on", async (t) => {
  const engine = openEngine(t, { slots: 256 });
  const peers = openEngine(t, { slots: 256 });
  const fds = [openListener(t), openListener(t)];
  for (const fd of fds) await fillQueue(peers, fd, ACCEPTS_PER_ROUND);
  let accepted = 0;
  const acceptor: Acceptor = {
    onAccept() {
      accepted += 1;
      // With `queued`, inside a round: nothing may be accepted over the records that are being read.
      for (const watch of [0, 1]) engine.unlisten(watch, { queued: true });
      return new Recorder(engine);
    },
    onAcceptError() {},
  };
  for (const [watch, fd] of fds.entries()) engine.listen(watch, 0, fd, acceptor);
  await until("a round", () => accepted > 0);
  // Half of a round's accepts from each.
  assert.equal(accepted, ACCEPTS_PER_ROUND);
  const left = fds.map((fd) => addon().socketQueue(fd));
  assert.deepEqual(left, [ACCEPTS_PER_ROUND / 2, ACCEPTS_PER_ROUND / 2]);
  for (const [watch, fd] of fds.entries()) engine.listen(watch, 0, fd, acceptor);
});

test("unlistened by an accept out of a queue that is being emptied: each connection is announced once", async (t) => {
  const engine = openEngine(t, { slots: 256 });
  const peers = openEngine(t, { slots: 256 });
  const fds = [openListener(t), openListener(t)];
  for (const fd of fds) await fillQueue(peers, fd, 10);
  const slots: number[] = [];
  const acceptor: Acceptor = {
    onAccept(slot) {
      slots.push(slot);
      engine.unlisten(1, { queued: true });
      return new Recorder(engine);
    },
    onAcceptError() {},
  };
  for (const [watch, fd] of fds.entries()) engine.listen(watch, 0, fd, acceptor);
  engine.unlisten(0, { queued: true });
  assert.equal(slots.length, 10);
  assert.equal(new Set(slots).size, 10);
  assert.deepEqual(
    fds.map((fd) => addon().socketQueue(fd)),
    [0, 10],
  );
});

test("a number that is used again means the new socket only", async (t) => {
  const engine = openEngine(t, { slots: 64 });
  const [first, second] = [openListener(t), openListener(t)];
  const counters = [new Counter(), new Counter()];
  engine.listen(5, 0, first, counters[0] as Counter);
  const early = openPeer(t, boundPort(first));
  engine.unlisten(5, { queued: false });
  engine.listen(5, 1, second, counters[1] as Counter);
  await early;
  await openPeer(t, boundPort(second));
  await until("the second", () => counters[1]?.accepted === 1);
  assert.equal(counters[0]?.accepted, 0);
  assert.equal(addon().socketQueue(first), 1);
});

test("the accepts of a round are shared: no socket takes all of them, and each gets its turn", async (t) => {
  const totals = new Float64Array(64);
  const engine = openEngine(t, { totals, slots: 4_096 });
  const peers = openEngine(t, { slots: 4_096 });
  const [sockets, each] = [96, 8];
  const fds = Array.from({ length: sockets }, () => openListener(t));
  for (const fd of fds) await fillQueue(peers, fd, each);
  const perRound = new Map<number, number[]>();
  for (const [watch, fd] of fds.entries()) {
    const row = watch % 64;
    engine.listen(watch, row, fd, {
      onAccept: () => {
        const round = totals[ROUNDS] as number;
        const rows = perRound.get(round) ?? [];
        perRound.set(round, [...rows, row]);
        return new Recorder(engine);
      },
      onAcceptError: () => {},
    });
  }
  const total = (): number => [...perRound.values()].reduce((sum, rows) => sum + rows.length, 0);
  await until("all to be accepted", () => total() === sockets * each);
  // More sockets than accepts: one from each in every round.
  assert.ok([...perRound.values()].every((rows) => rows.length <= sockets));
  const [first = []] = perRound.values();
  assert.equal(first.length, sockets);
  assert.equal(new Set(first).size, 64);
});

test("too few records for all: the sockets take turns in being first", async (t) => {
  const { stdout, stderr } = await runScript(
    t,
    `
    import { addon } from ${moduleUrl("#src/os/addon.js")};
    import { boundPort } from ${moduleUrl("#src/os/descriptors.js")};
    import { DEFAULT_SOCKET } from ${moduleUrl("#src/base/settings.js")};
    import { packSocketOptions } from ${moduleUrl("#src/os/socket.js")};
    const options = packSocketOptions(DEFAULT_SOCKET);
    const memory = () => ({
      header: new Int32Array(8), totals: new Float64Array(64), input: new Uint8Array(1 << 20), output: new Uint8Array(1 << 20),
      inputRecords: new Int32Array(32 * 4), outputRecords: new Int32Array(64 * 5),
      generations: new Int32Array(2048), unsent: new Int32Array(2048), counters: new Float64Array(2048 * 4),
    });
    const peers = addon().engineOpen({ ...memory(), inputRecords: new Int32Array(4096 * 4) }, () => {});
    const SOCKETS = 40;
    const EACH = 10;
    const fds = Array.from({ length: SOCKETS }, () => addon().socketListen("127.0.0.1", 0, true, options));
    for (const fd of fds) for (let i = 0; i < EACH; i++) addon().engineConnect(peers, "127.0.0.1", boundPort(fd), "", options);
    while (fds.some((fd) => addon().socketQueue(fd) < EACH)) await new Promise((resolve) => setTimeout(resolve, 5));
    const own = memory();
    const rounds = [];
    const engine = addon().engineOpen(own, (count) => {
      const rows = [];
      for (let i = 0; i < count; i++) if (own.inputRecords[i * 4] === 2) rows.push(own.inputRecords[i * 4 + 2]);
      rounds.push(rows);
      if (rounds.flat().length < SOCKETS * EACH) return;
      const early = new Set(rounds.slice(0, 3).flat()).size;
      console.log(JSON.stringify({ most: Math.max(...rounds.map((each) => each.length)), early }));
      process.exit(0);
    });
    for (const [watch, fd] of fds.entries()) addon().engineListen(engine, watch, watch, fd, -1);
    `,
  );
  assert.equal(stderr, "");
  const { most, early } = JSON.parse(stdout) as { most: number; early: number };
  // Half of the records, and one.
  assert.ok(most <= 17, `${most} accepts with 32 records`);
  assert.equal(early, 40, "sockets that had a turn in three rounds");
});

test("out of descriptors, every socket rests and none is forgotten; one that is given up meanwhile stays so", async (t) => {
  const outcome = await runScript(
    t,
    `
    import { openSync, closeSync } from "node:fs";
    import { Engine } from ${moduleUrl("#src/engine/engine.js")};
    import { addon } from ${moduleUrl("#src/os/addon.js")};
    import { DEFAULT_SOCKET } from ${moduleUrl("#src/base/settings.js")};
    import { packSocketOptions } from ${moduleUrl("#src/os/socket.js")};
    import { boundPort } from ${moduleUrl("#src/os/descriptors.js")};
    const options = packSocketOptions(DEFAULT_SOCKET);
    const totals = new Float64Array(64);
    const engine = new Engine({ slots: 256, totals });
    const silent = { onOpen() {}, onData() {}, onEnd() {}, onError() {}, onWritable() {}, onBlocked() {} };
    const fds = [0, 1, 2].map(() => addon().socketListen("127.0.0.1", 0, true, options));
    const errors = [0, 0, 0];
    const accepted = [0, 0, 0];
    const watches = [0, 1000, 16383];
    for (const [row, fd] of fds.entries()) {
      engine.listen(watches[row], row, fd, { onAccept: () => { accepted[row]++; return silent; }, onAcceptError: () => { errors[row]++; } });
      for (let i = 0; i < 4; i++) engine.connect("127.0.0.1", boundPort(fd), "", options, silent);
    }
    const taken = [];
    const takeAll = () => {
      try { for (;;) taken.push(openSync("/dev/null")); } catch (error) { if (error.code !== "EMFILE") throw error; }
    };
    const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const before = totals[${ROUNDS}];
    takeAll();
    while (errors.some((count) => count < 2)) {
      await wait(5);
      // That of a client that was shed must not serve another.
      takeAll();
    }
    const few = totals[${ROUNDS}] - before < 30;
    const before1 = errors[1];
    engine.unlisten(watches[1], { queued: true });
    const disturbed = errors[1] - before1;
    for (const each of taken) closeSync(each);
    // Each failure has shed one client.
    const served = (row) => accepted[row] + errors[row] === 4;
    while (!served(0) || !served(2)) await wait(5);
    await wait(250);
    const meanwhile = accepted[1];
    engine.listen(watches[1], 1, fds[1], { onAccept: () => { accepted[1]++; return silent; }, onAcceptError() {} });
    while (!served(1)) await wait(5);
    console.log(JSON.stringify({ few, disturbed, meanwhile }));
    engine.shutdown();
    `,
    "ulimit -n 64",
  );
  assert.equal(outcome.stderr, "");
  assert.deepEqual(JSON.parse(outcome.stdout), { few: true, disturbed: 0, meanwhile: 0 });
});

/** Two engines at one queue, as two workers that share a socket. */
function share(t: TestContext): { readonly fd: number; readonly engines: Engine[]; readonly counters: Counter[] } {
  const fd = openListener(t);
  const engines = [openEngine(t, { slots: 1_024 }), openEngine(t, { slots: 1_024 })];
  const counters = engines.map(() => new Counter());
  return { fd, engines, counters };
}

test("a shared socket: each connection is accepted once, by one of them, and nobody is left waiting", async (t) => {
  const { fd, engines, counters } = share(t);
  for (const [index, engine] of engines.entries()) engine.listen(index, 0, fd, counters[index] as Counter);
  const peers = openEngine(t, { slots: 1_024 });
  const total = (): number => counters.reduce((sum, { accepted }) => sum + accepted, 0);
  for (let wave = 1; wave <= 10; wave++) {
    for (let i = 0; i < 50; i++) peers.connect("127.0.0.1", boundPort(fd), "", PLAIN_OPTIONS, new Recorder(peers));
    await until("the wave", () => total() === wave * 50);
  }
  // One at a time, too: an exclusive waiter that was woken for nothing must not keep the others asleep.
  for (let i = 1; i <= 20; i++) {
    await openPeer(t, boundPort(fd));
    await until("the next", () => total() === 500 + i);
  }
  assert.equal(addon().socketQueue(fd), 0);
});

test("a shared socket that one of them leaves, or shuts down on, goes on with the other", async (t) => {
  const { fd, engines, counters } = share(t);
  const [a, b] = engines as [Engine, Engine];
  const [ofA, ofB] = counters as [Counter, Counter];
  a.listen(0, 0, fd, ofA);
  b.listen(0, 0, fd, ofB);
  a.unlisten(0, { queued: false });
  for (let i = 1; i <= 10; i++) {
    await openPeer(t, boundPort(fd));
    await until("b", () => ofB.accepted === i);
  }
  a.listen(0, 0, fd, ofA);
  b.shutdown();
  for (let i = 1; i <= 10; i++) {
    await openPeer(t, boundPort(fd));
    await until("a", () => ofA.accepted === i);
  }
});
