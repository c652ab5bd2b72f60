/** Percentiles from buckets. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { BOUNDS_MS, LatencyWindow, quantile } from "#src/admin/page/latency.js";
import { DURATION_BUCKETS, DURATION_BUCKETS_S } from "#src/base/buckets.js";

const buckets = (counts: Readonly<Record<number, number>>): number[] =>
  Array.from({ length: DURATION_BUCKETS }, (_, index) => counts[index] ?? 0);

test("the bounds are those that the workers count by", () => {
  assert.deepEqual(
    BOUNDS_MS,
    DURATION_BUCKETS_S.map((seconds) => Number((seconds * 1000).toPrecision(6))),
  );
});

test("linear within a bucket", () => {
  // A hundred between 0.5 and 1 ms.
  assert.equal(quantile(buckets({ 4: 100 }), 0.5), 0.75);
  assert.equal(quantile(buckets({ 4: 100 }), 1), 1);
  assert.equal(quantile(buckets({ 0: 90, 7: 10 }), 0.5)?.toFixed(4), "0.0278");
  assert.equal(quantile(buckets({ 0: 90, 7: 10 }), 0.95), 7.5);
});

test("nothing in it: nothing to say; beyond the last bound: at least that", () => {
  assert.equal(quantile(buckets({}), 0.99), null);
  assert.equal(quantile(buckets({ 17: 3 }), 0.99), 10_000);
});

test("a window forgets what is older, and begins anew where another primary counts", () => {
  const window = new LatencyWindow(2);
  assert.deepEqual(window.push([100, 0]), [0, 0], "what was counted before is not recent");
  assert.deepEqual(window.push([101, 1]), [1, 1]);
  assert.deepEqual(window.push([102, 1]), [2, 1]);
  assert.deepEqual(window.push([103, 1]), [2, 0]);
  assert.deepEqual(window.push([5, 0]), [0, 0], "counts that went back");
  assert.deepEqual(window.push([6, 0]), [1, 0]);
});
