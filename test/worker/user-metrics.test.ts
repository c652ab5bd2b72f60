import assert from "node:assert/strict";
import { test } from "node:test";
import { USER_BYTES_MAX, USER_SAMPLES_MAX } from "#src/control/user-metrics.js";
import { boundedAnswer, readUserMetrics } from "#src/worker/user-metrics.js";

const gauge = (name: string, values: readonly object[]): object => ({
  name,
  help: "Help",
  type: "gauge",
  aggregator: "sum",
  values,
});
const many = (count: number): object[] => Array.from({ length: count }, (_, n) => ({ value: n, labels: { n } }));
const namesOf = (raw: readonly unknown[]): string[] => boundedAnswer(raw).metrics.map(({ name }) => name);

test("a service that has not loaded prom-client has no metrics", async () => {
  assert.deepEqual(await readUserMetrics(), { metrics: [], refused: [], leftOut: [] });
});

test("values survive JSON, labels are text", () => {
  const values = [
    { value: 1.5, labels: { a: 1, b: true } },
    { value: Number.NaN, labels: {} },
    { value: -Infinity, labels: {} },
  ];
  const { metrics } = boundedAnswer([gauge("x", values)]);
  assert.deepEqual(JSON.parse(JSON.stringify(metrics)), metrics);
  assert.deepEqual(metrics[0]?.values, [
    { value: 1.5, labels: { a: "1", b: "true" } },
    { value: "NaN", labels: {} },
    { value: "-Infinity", labels: {} },
  ]);
});

test("a metric is in whole or not at all; what comes after one that is too large may still fit", () => {
  const raw = [gauge("a", many(USER_SAMPLES_MAX - 1)), gauge("b", many(2)), gauge("c", many(1)), gauge("d", many(1))];
  assert.deepEqual(namesOf(raw), ["a", "c"]);
  assert.deepEqual(boundedAnswer(raw).leftOut, ["b", "d"]);
  const long = gauge("long", [{ value: 1, labels: { text: "x".repeat(USER_BYTES_MAX) } }]);
  assert.deepEqual(namesOf([long, gauge("short", many(1))]), ["short"]);
});

test("names that are ours, and what Prometheus could not read, are left out", () => {
  const bad = [
    gauge("headrace_x", many(1)),
    gauge("a b", many(1)),
    gauge("labels", [{ value: 1, labels: { "a b": "x" } }]),
    gauge("stray", [{ value: 1, labels: {}, metricName: "headrace_ready" }]),
    { ...gauge("untyped", many(1)), type: "thing" },
    null,
    7,
    { name: "headrace_y" },
  ];
  const { metrics, refused, leftOut } = boundedAnswer(bad);
  assert.deepEqual(metrics, []);
  assert.deepEqual(refused, ["headrace_x", "headrace_y"]);
  assert.deepEqual(leftOut, ["a b", "labels", "stray", "untyped"]);
});

test("however many are refused, the answer is short", () => {
  const raw = Array.from({ length: 1_000 }, (_, n) => gauge(`headrace_${n}`, many(1)));
  assert.equal(boundedAnswer(raw).refused.length, 10);
});

test("an aggregator that is not prom-client's own is a sum", () => {
  const of = (aggregator: unknown): string | undefined =>
    boundedAnswer([{ ...gauge("x", many(1)), aggregator }]).metrics[0]?.aggregator;
  assert.deepEqual(["max", "omit", "median", undefined].map(of), ["max", "omit", "sum", "sum"]);
});
