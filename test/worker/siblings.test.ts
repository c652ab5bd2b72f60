import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { addon } from "#src/os/addon.js";
import { Scoreboard } from "#src/os/scoreboard.js";
import { OWNER_LATE_MS, slotsToServe } from "#src/worker/siblings.js";

const NOW = 1_000_000;
const SLOTS = [0, 1, 2, 3];

/** Slot n is owned by seat 10 + n, and all serve. */
function crew(t: TestContext): Scoreboard {
  const scoreboard = Scoreboard.create();
  t.after(() => addon().fdClose(scoreboard.fd));
  for (const slot of SLOTS) {
    scoreboard.owners[slot] = 10 + slot;
    scoreboard.block(10 + slot).set("accepting", 1);
    scoreboard.block(10 + slot).set("clock", NOW);
  }
  return scoreboard;
}

/** What each slot's owner serves beside its own. */
function served(scoreboard: Scoreboard, now = NOW): number[][] {
  return SLOTS.map((slot) => slotsToServe(scoreboard, { slot, seat: 10 + slot }, SLOTS, now));
}

test("while all run, nobody serves another's slot", (t) => {
  assert.deepEqual(served(crew(t)), [[], [], [], []]);
});

test("the slot of one that stands still is served by the next one, and given back when it runs", (t) => {
  const scoreboard = crew(t);
  scoreboard.block(11).set("clock", NOW - OWNER_LATE_MS);
  assert.deepEqual(served(scoreboard), [[], [], [], []]);
  scoreboard.block(11).set("clock", NOW - OWNER_LATE_MS - 1);
  assert.deepEqual(served(scoreboard), [[], [], [1], []]);
  scoreboard.block(11).set("clock", NOW);
  assert.deepEqual(served(scoreboard), [[], [], [], []]);
});

test("a slot without an owner, and one whose owner does not accept yet, are served", (t) => {
  const scoreboard = crew(t);
  scoreboard.owners[3] = -1;
  scoreboard.block(12).set("accepting", 0);
  assert.deepEqual(served(scoreboard), [[2, 3], [], [], []]);
});

test("one survivor serves everything", (t) => {
  const scoreboard = crew(t);
  for (const slot of [0, 1, 3]) scoreboard.owners[slot] = -1;
  assert.deepEqual(slotsToServe(scoreboard, { slot: 2, seat: 12 }, SLOTS, NOW), [0, 1, 3]);
});

test("a worker whose slot has passed to another serves nobody's", (t) => {
  const scoreboard = crew(t);
  scoreboard.owners[0] = 50;
  assert.deepEqual(slotsToServe(scoreboard, { slot: 0, seat: 10 }, SLOTS, NOW), []);
});

test("each unserved slot has exactly one server, whoever is missing", (t) => {
  for (let mask = 0; mask < 15; mask++) {
    const scoreboard = crew(t);
    const dead = SLOTS.filter((slot) => mask & (1 << slot));
    for (const slot of dead) scoreboard.block(10 + slot).set("clock", 0);
    const alive = SLOTS.filter((slot) => !dead.includes(slot));
    const all = alive.flatMap((slot) => slotsToServe(scoreboard, { slot, seat: 10 + slot }, SLOTS, NOW));
    assert.deepEqual(all.sort(), dead, `dead: ${dead}`);
  }
});
