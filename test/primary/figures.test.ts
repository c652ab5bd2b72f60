import assert from "node:assert/strict";
import { test } from "node:test";
import { reasonIndex } from "#src/base/reasons.js";
import { LISTENER_CLOSED, LISTENER_FIELDS, Scoreboard } from "#src/os/scoreboard.js";
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
