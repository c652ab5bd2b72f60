import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { build } from "hdr-histogram-js";
import { Latencies, mergeLatencies } from "#src/load/latency.js";

test("the buckets are those of the HDR library", () => {
  const micros = fc.oneof(fc.nat(5000), fc.nat(1_000_000), fc.nat(2 ** 31 - 1));
  const property = fc.property(fc.array(micros, { minLength: 1, maxLength: 200 }), (values) => {
    const latencies = new Latencies();
    const expected = build({
      bitBucketSize: 64,
      highestTrackableValue: 2 ** 31 - 1,
      numberOfSignificantValueDigits: 3,
    });
    for (const value of values) {
      latencies.record(value / 1000 + 1e-7);
      expected.recordValue(value);
    }
    const merged = mergeLatencies([latencies.counts()]);
    assert.equal(merged.totalCount, values.length);
    for (const percentile of [1, 50, 90, 99, 99.9, 100]) {
      assert.equal(merged.getValueAtPercentile(percentile), expected.getValueAtPercentile(percentile));
    }
  });
  fc.assert(property, { numRuns: 100 });
});

test("several processes' latencies are one histogram", () => {
  const parts = [1, 10, 100].map((ms) => {
    const latencies = new Latencies();
    for (let i = 0; i < 10; i++) latencies.record(ms);
    return latencies.counts();
  });
  const merged = mergeLatencies(parts);
  assert.equal(merged.totalCount, 30);
  assert.equal(Math.floor(merged.getValueAtPercentile(50) / 1000), 10);
});

test("what is beyond the scale is counted at its ends", () => {
  const latencies = new Latencies();
  latencies.record(-1);
  latencies.record(1e12);
  const merged = mergeLatencies([latencies.counts()]);
  assert.equal(merged.totalCount, 2);
  assert.equal(merged.getValueAtPercentile(1), 0);
});
