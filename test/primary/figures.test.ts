import assert from "node:assert/strict";
import { test } from "node:test";
import { reasonIndex } from "#src/base/reasons.js";
import { LISTENER_CLOSED, LISTENER_DURATIONS, LISTENER_FIELDS, Scoreboard } from "#src/os/scoreboard.js";
import { Figures } from "#src/primary/figures.js";
import type { CountedWorker } from "#src/primary/snapshot.js";

/** In seat and slot `seat`. */
function worker(seat: number): CountedWorker {
  return { slot: seat, seat, pid: 100 + seat, state: "accepting", owner: true };
}

/** What a worker would have counted. */
function count(scoreboard: Scoreboard, seat: number, active: number, requests: number): void {
  const block = scoreboard.block(seat);
  block.set("accepted", 5);
  block.set("bytesReceived", 100);
  const row = block.row(0);
  row[LISTENER_FIELDS.indexOf("active")] = active;
  row[LISTENER_FIELDS.indexOf("accepted")] = 5;
  row[LISTENER_FIELDS.indexOf("opened")] = 5;
  row[LISTENER_FIELDS.indexOf("requests")] = requests;
  row[LISTENER_CLOSED + reasonIndex("peer-closed")] = 5 - active;
}

test("what a dead worker counted stays in the totals; its connections do not", () => {
  const scoreboard = Scoreboard.create();
  const figures = new Figures(scoreboard, () => ({ workers: [worker(0), worker(1)], rows: [0] }));
  count(scoreboard, 0, 2, 10);
  count(scoreboard, 1, 3, 20);
  const before = figures.totals();
  assert.deepEqual([before.open, before.accepted, before.requests, before.bytesReceived], [5, 10, 30, 200]);
  assert.equal(figures.closes()["peer-closed"], 5);

  figures.retire(worker(0));
  assert.deepEqual(figures.totals(), { ...before, open: 3 });
  assert.equal(figures.worker(0).requests, 0);
  assert.equal(figures.closes()["peer-closed"], 5);
  assert.equal(figures.closes().killed, 2);

  count(scoreboard, 0, 1, 1);
  assert.deepEqual(figures.listener(0), {
    open: 4,
    prefaces: 0,
    opened: 15,
    requests: 31,
    shed: 0,
    handshakes: 0,
    resumed: 0,
  });
});

test("the closes of a removed listener stay in the totals, and its row is empty for the next one", () => {
  const scoreboard = Scoreboard.create();
  let rows = [0, 1];
  const figures = new Figures(scoreboard, () => ({ workers: [worker(0)], rows }));
  count(scoreboard, 0, 2, 10);
  scoreboard.block(0).row(1)[LISTENER_CLOSED + reasonIndex("drain")] = 4;
  figures.retire(worker(0));
  rows = [0];
  figures.forget(1);
  assert.equal(figures.closes().drain, 4);
  assert.deepEqual(figures.listener(1), {
    open: 0,
    prefaces: 0,
    opened: 0,
    requests: 0,
    shed: 0,
    handshakes: 0,
    resumed: 0,
  });
});

const DESCRIBED = {
  generation: 3,
  slots: 2,
  listeners: new Map([[0, { name: "web", datagrams: false }]]),
  restartsOf: () => 1,
};

test("a snapshot has the counts of each slot over all its processes, and what is now of those that live", () => {
  const scoreboard = Scoreboard.create();
  let workers: CountedWorker[] = [worker(0), worker(1)];
  const figures = new Figures(scoreboard, () => ({ workers, rows: [0] }));
  for (const seat of [0, 1]) {
    count(scoreboard, seat, 2, 10);
    const block = scoreboard.block(seat);
    block.set("openFds", 30);
    block.set("gcMinor", 4);
    block.set("sendSeconds", 0.5);
    block.row(0)[LISTENER_DURATIONS + 3] = 10;
    block.row(0)[LISTENER_FIELDS.indexOf("durationSum")] = 0.25;
  }
  const before = figures.snapshot(DESCRIBED);
  assert.deepEqual(before.server, { generation: 3, slots: 2, processes: { accepting: 2 }, unaccounted: 0 });

  figures.retire(worker(0));
  workers = [worker(1)];
  const between = figures.snapshot(DESCRIBED);
  assert.deepEqual(
    between.workers.map(({ slot, pid, seat, state, restarts, openFds, inFlight }) => {
      return { slot, pid, seat, state, restarts, openFds, inFlight };
    }),
    [
      { slot: 0, pid: 0, seat: -1, state: "dead", restarts: 1, openFds: 0, inFlight: 0 },
      { slot: 1, pid: 101, seat: 1, state: "accepting", restarts: 1, openFds: 30, inFlight: 0 },
    ],
  );

  // Its successor, on another seat, while a predecessor of it still drains.
  workers = [{ ...worker(0), owner: false, state: "stopping" }, worker(1), { ...worker(0), seat: 2, pid: 7 }];
  count(scoreboard, 0, 1, 1);
  count(scoreboard, 2, 3, 5);
  scoreboard.block(2).set("openFds", 9);
  const after = figures.snapshot(DESCRIBED);
  const [slot] = after.workers;
  assert.deepEqual([slot?.pid, slot?.seat, slot?.openFds, slot?.bytesReceived], [7, 2, 9, 300]);
  assert.deepEqual([slot?.gc.minor.count, slot?.phases.send], [4, 0.5]);
  const [web] = after.listeners;
  assert.deepEqual([web?.listener, web?.active, web?.accepted, web?.requests], ["web", 4, 15, 16]);
  assert.deepEqual([web?.closed.killed, web?.closed["peer-closed"]], [2, 3 + 4 + 2]);
  assert.deepEqual([web?.duration.buckets[3], web?.duration.sum], [10, 0.25]);
  assert.equal(after.server.unaccounted, 0);
  assert.deepEqual(after.server.processes, { accepting: 2, stopping: 1 });
});

test("a connection whose end was not counted shows, until its worker ends", () => {
  const scoreboard = Scoreboard.create();
  const figures = new Figures(scoreboard, () => ({ workers: [worker(0)], rows: [0] }));
  count(scoreboard, 0, 2, 10);
  const row = scoreboard.block(0).row(0);
  row[LISTENER_FIELDS.indexOf("active")] = 1;
  assert.equal(figures.unaccounted(), 1);
  row[LISTENER_FIELDS.indexOf("movedOut")] = 1;
  assert.equal(figures.unaccounted(), 0);
  row[LISTENER_FIELDS.indexOf("movedIn")] = 1;
  assert.equal(figures.unaccounted(), 1);
  figures.retire(worker(0));
  assert.deepEqual([figures.unaccounted(), figures.closes().killed], [0, 2]);
});

test("what removed listeners counted goes on under one name, and a listener that is not there yet is not among them", () => {
  const scoreboard = Scoreboard.create();
  let rows = [0, 1];
  const figures = new Figures(scoreboard, () => ({ workers: [worker(0)], rows }));
  count(scoreboard, 0, 0, 10);
  const names = (listeners: Map<number, { name: string; datagrams: boolean }>): unknown[] =>
    figures.snapshot({ ...DESCRIBED, slots: 1, listeners }).listeners.map((each) => [each.listener, each.requests]);
  const web = { name: "web", datagrams: false };
  const other = { name: "other", datagrams: false };
  scoreboard.block(0).row(1)[LISTENER_FIELDS.indexOf("requests")] = 3;
  assert.deepEqual(names(new Map([[0, web]])), [["web", 10]]);
  assert.deepEqual(names(new Map([[1, other]])), [
    ["other", 3],
    ["(removed)", 10],
  ]);
  figures.retire(worker(0));
  rows = [1];
  figures.forget(0);
  assert.deepEqual(names(new Map([[1, other]])), [
    ["other", 3],
    ["(removed)", 10],
  ]);
});

test("a worker whose event loop stands still looks so, though it cannot say it", () => {
  const scoreboard = Scoreboard.create();
  const clock = { ms: 10_000 };
  let workers = [worker(0), { ...worker(1), state: "starting" }];
  const figures = new Figures(
    scoreboard,
    () => ({ workers, rows: [] }),
    () => clock.ms,
  );
  const said = (): unknown[] =>
    figures.snapshot(DESCRIBED).workers.map(({ loopDelay, oldestSeconds }) => [loopDelay.max, oldestSeconds]);
  for (const seat of [0, 1]) {
    const block = scoreboard.block(seat);
    block.set("clock", 9_980);
    block.set("loopDelayMax", 0.25);
  }
  assert.deepEqual(said(), [
    [0.25, 0],
    [0.25, 0],
  ]);
  clock.ms = 13_030;
  assert.deepEqual(said()[0], [3, 0]);
  scoreboard.block(0).set("oldestSeconds", 1);
  assert.deepEqual(said()[0], [3, 4.05]);
  // Its clock does not run yet, or does not any more.
  assert.deepEqual(said()[1], [0.25, 0]);
  workers = [worker(0)];
  scoreboard.block(0).set("clock", 0);
  assert.deepEqual(said()[0], [0.25, 1]);
});

test("a listener whose address changes goes on counting, and one that is removed stays so", () => {
  const scoreboard = Scoreboard.create();
  let rows = [0];
  let workers = [worker(0)];
  const figures = new Figures(scoreboard, () => ({ workers, rows }));
  const said = (...named: [number, string][]): unknown[] => {
    const listeners = new Map(named.map(([row, name]) => [row, { name, datagrams: false }]));
    const snapshot = figures.snapshot({ ...DESCRIBED, slots: 1, listeners });
    return snapshot.listeners.map(({ listener, requests }) => [listener, requests]);
  };
  const requests = (row: number, count: number): void => {
    scoreboard.block(0).row(row)[LISTENER_FIELDS.indexOf("requests")] = count;
  };
  requests(0, 10);
  assert.deepEqual(said([0, "web"]), [["web", 10]]);
  // Its address changes; what served the old one drains, ends, and its row is free.
  rows = [0, 1];
  requests(1, 5);
  assert.deepEqual(said([1, "web"]), [["web", 15]]);
  figures.retire(worker(0));
  workers = [];
  assert.deepEqual(said([1, "web"]), [["web", 15]]);
  rows = [1];
  figures.forget(0);
  assert.deepEqual(said([1, "web"]), [["web", 15]]);
  assert.equal(figures.totals().requests, 15);
  // It is removed, and later there is another with its name.
  assert.deepEqual(said([2, "api"]), [
    ["api", 0],
    ["(removed)", 15],
  ]);
  rows = [2, 3];
  figures.forget(1);
  assert.deepEqual(said([2, "api"], [3, "web"]), [
    ["api", 0],
    ["web", 0],
    ["(removed)", 15],
  ]);
});
