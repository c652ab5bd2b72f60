import assert from "node:assert/strict";
import { test } from "node:test";
import { Farewell } from "#src/worker/farewell.js";

const TICK_MS = 50;

/** Goodbyes in each tenth of the time; `meanwhile` may change how many are left. */
function tenths(connections: number, forMs: number, meanwhile: (left: number, now: number) => number): number[] {
  const farewell = new Farewell(0, forMs);
  const told = new Array<number>(11).fill(0);
  let left = connections;
  for (let now = TICK_MS; now <= forMs + TICK_MS; now += TICK_MS) {
    left = meanwhile(left, now);
    const due = farewell.due(left, now);
    assert.ok(due <= left && due >= 0 && Number.isInteger(due));
    told[Math.floor((10 * now) / forMs)] = (told[Math.floor((10 * now) / forMs)] ?? 0) + due;
    left -= due;
  }
  assert.equal(left, 0, "all are told in the end");
  return told;
}

test("goodbyes are spread evenly", () => {
  for (const [connections, forMs] of [
    [10_000, 30_000],
    [100, 30_000],
    [7, 3_600_000],
  ] as const) {
    const share = connections / 10;
    for (const [index, count] of tenths(connections, forMs, (left) => left)
      .slice(0, 10)
      .entries()) {
      assert.ok(Math.abs(count - share) <= 1 + share * 0.02, `${connections} in ${forMs}: ${count} in tenth ${index}`);
    }
  }
});

test("who leaves by itself is not missed, and who comes late has a share of the time that is left", () => {
  const gone = tenths(1_000, 10_000, (left, now) => (now === 5_000 ? Math.floor(left / 2) : left));
  assert.ok(Math.max(...gone.slice(5, 10)) <= 52, String(gone));
  const came = tenths(100, 10_000, (left, now) => (now === 5_000 ? left + 900 : left));
  assert.ok(Math.max(...came.slice(6, 10)) <= 195, String(came));
});

test("no time at all: at once", () => {
  assert.equal(new Farewell(1_000, 0).due(5, 1_000), 5);
});

test("a worker that stood still for a while catches up, and does not tell more than there are", () => {
  const farewell = new Farewell(0, 1_000);
  assert.equal(farewell.due(10, 900), 9);
  assert.equal(farewell.due(1, 2_000), 1);
});
