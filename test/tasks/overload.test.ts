import assert from "node:assert/strict";
import { test } from "node:test";
import { CALM_MS, INTERVAL_MS, Overload } from "#src/tasks/overload.js";

/** A task is taken every 10 ms after having waited for `waitedMs`. */
function take(overload: Overload, from: number, forMs: number, waitedMs: number): number {
  let now = from;
  for (; now < from + forMs; now += 10) {
    overload.taken(now, waitedMs, overload.limitMs(0));
    overload.look(now);
  }
  return now;
}

test("only when everything has waited too long for an interval", () => {
  const overload = new Overload(10);
  let now = take(overload, 1_000, INTERVAL_MS - 20, 50);
  overload.taken(now, 9, 10);
  now = take(overload, now + 10, INTERVAL_MS - 20, 50);
  assert.ok(!overload.overloaded, "one was in time");
  overload.emptied();
  now = take(overload, now + 10, INTERVAL_MS, 50);
  assert.ok(!overload.overloaded, "the queue was empty");
  take(overload, now, 20, 50);
  assert.ok(overload.overloaded);
});

test("it ends with a period in which hardly anything was refused, not before", () => {
  const overload = new Overload(10);
  let now = take(overload, 1_000, INTERVAL_MS + 20, 50);
  for (let period = 0; period < 3; period++) {
    for (let each = 0; each < 20; each++) overload.refused();
    now = take(overload, now, CALM_MS + 10, 5);
    assert.ok(overload.overloaded, "a sixth was refused");
  }
  now = take(overload, now, CALM_MS / 2, 5);
  assert.ok(overload.overloaded, "not yet");
  take(overload, now, CALM_MS + 20, 5);
  assert.ok(!overload.overloaded);
});

test("off is off, and long tasks may wait for some like them", () => {
  const off = new Overload(Number.POSITIVE_INFINITY);
  take(off, 1_000, 1_000, 100_000);
  assert.ok(!off.overloaded);
  const overload = new Overload(10);
  assert.deepEqual([overload.limitMs(2), overload.limitMs(400)], [10, 400]);
});
