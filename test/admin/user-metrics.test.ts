import assert from "node:assert/strict";
import { test } from "node:test";
import { type AskedWorker, UserMetrics } from "#src/admin/user-metrics.js";
import type { UserMetric, UserMetricsAnswer } from "#src/control/user-metrics.js";
import { type Exposition, readExposition } from "../support/exposition.js";

type Answer = readonly UserMetric[] | Error;

/** Workers by name: the same name is the same process. Each scrape is told what they answer. */
function open(): {
  scrape(answers: Record<string, Answer>): Promise<Exposition>;
  warnings: string[];
  unanswered: number;
} {
  const processes = new Map<string, object>();
  const warnings: string[] = [];
  const user = new UserMetrics((message) => warnings.push(message));
  const processOf = (name: string): object => {
    const known = processes.get(name) ?? {};
    processes.set(name, known);
    return known;
  };
  const opened = {
    warnings,
    unanswered: 0,
    async scrape(answers: Record<string, Answer>) {
      const workers = Object.entries(answers).map(
        ([name, answer]): AskedWorker => ({
          process: processOf(name),
          ask: async (): Promise<UserMetricsAnswer> => {
            if (answer instanceof Error) throw answer;
            return { metrics: answer, refused: [], leftOut: [] };
          },
        }),
      );
      const { text, unanswered } = await user.read(workers);
      opened.unanswered = unanswered;
      return readExposition(text);
    },
  };
  return opened;
}

const metric = (
  type: UserMetric["type"],
  name: string,
  value: UserMetric["values"][number]["value"],
  rest: Partial<UserMetric> = {},
): UserMetric => ({
  name,
  help: "Help",
  type,
  aggregator: "sum",
  values: [{ value, labels: {} }],
  ...rest,
});
const counter = (name: string, value: number): UserMetric => metric("counter", name, value);
const gauge = (name: string, value: number | "NaN"): UserMetric => metric("gauge", name, value);
const silent = new Error("no answer within 500 ms");

test("each metric by its aggregator", async () => {
  const user = open();
  const answer = (value: number): UserMetric[] =>
    (["sum", "min", "max", "average", "first", "omit"] as const).map((aggregator) =>
      metric("gauge", aggregator, value, { aggregator }),
    );
  const shown = await user.scrape({ a: answer(2), b: answer(4) });
  const figures = ["sum", "min", "max", "average", "first", "omit"].map((name) => shown.sum(name));
  assert.deepEqual(figures, [6, 2, 4, 3, 2, undefined]);
});

test("a counter of processes that have gone stays, once, and a gauge does not", async () => {
  const user = open();
  await user.scrape({ a: [counter("c", 5), gauge("g", 5)], b: [counter("c", 7), gauge("g", 7)] });
  for (let again = 0; again < 2; again++) {
    const shown = await user.scrape({ b: [counter("c", 8), gauge("g", 8)] });
    assert.deepEqual([shown.sum("c"), shown.sum("g")], [13, 8]);
  }
  const shown = await user.scrape({ b: [counter("c", 9)], c: [counter("c", 1)] });
  assert.equal(shown.sum("c"), 15);
  assert.equal((await user.scrape({})).sum("c"), 15);
});

test("a worker that does not answer keeps its counters as they were; when it dies then, they stay", async () => {
  const user = open();
  await user.scrape({ a: [counter("c", 5), gauge("g", 1)], b: [counter("c", 7)] });
  const shown = await user.scrape({ a: silent, b: [counter("c", 8)] });
  assert.deepEqual([shown.sum("c"), shown.sum("g"), user.unanswered], [13, undefined, 1]);
  assert.equal((await user.scrape({ b: [counter("c", 8)] })).sum("c"), 13);
  assert.equal(user.unanswered, 0);
});

test("of a summary what is counted stays, and of a histogram all", async () => {
  const user = open();
  const values = (name: string, extra: UserMetric["values"][number]): UserMetric["values"] => [
    extra,
    { metricName: `${name}_sum`, labels: {}, value: 3 },
    { metricName: `${name}_count`, labels: {}, value: 2 },
  ];
  const summary = metric("summary", "s", 0, { values: values("s", { labels: { quantile: "0.5" }, value: 1 }) });
  const histogram = metric("histogram", "h", 0, {
    values: values("h", { metricName: "h_bucket", labels: { le: "+Inf" }, value: 2 }),
  });
  await user.scrape({ a: [summary, histogram] });
  const shown = await user.scrape({ b: [summary, histogram] });
  assert.deepEqual([shown.sum("s"), shown.sum("s_sum"), shown.sum("s_count")], [1, 6, 4]);
  assert.deepEqual([shown.sum("h_bucket", { le: "+Inf" }), shown.sum("h_sum"), shown.sum("h_count")], [4, 6, 4]);
});

test("a name that means something else in the next release begins anew", async () => {
  const user = open();
  await user.scrape({ a: [counter("x", 5)] });
  const shown = await user.scrape({ b: [gauge("x", 2)] });
  assert.deepEqual([shown.sum("x"), shown.families.get("x")?.type], [2, "gauge"]);
});

test("what JSON does not know, and labels with quotes and line ends, arrive", async () => {
  const user = open();
  const odd = { kind: 'a "b"\\\nc' };
  const shown = await user.scrape({
    a: [gauge("g", "NaN"), metric("counter", "c", 1, { values: [{ value: 1, labels: odd }] })],
  });
  assert.ok(Number.isNaN(shown.sum("g")));
  assert.equal(shown.sum("c"), 1);
});

test("what all workers together have is bounded: a metric beyond it is left out, and said so", async () => {
  const user = open();
  const answers = Array.from({ length: 11 }, (_, worker) => {
    const values = Array.from({ length: 1_000 }, (_, n) => ({ value: 1, labels: { id: `${worker}-${n}` } }));
    return [`worker ${worker}`, [gauge("few", 1), metric("gauge", "many", 0, { values })]] as const;
  });
  const shown = await user.scrape(Object.fromEntries(answers));
  assert.deepEqual([shown.sum("few"), shown.sum("many")], [11, undefined]);
  assert.match(user.warnings.join(), /^the metric many .* all workers together have too many series$/);
});

test("label values that are new in every process do not add up for ever", async () => {
  const user = open();
  for (let round = 0; round < 12; round++) {
    const values = Array.from({ length: 1_000 }, (_, n) => ({ value: 1, labels: { id: `${round}-${n}` } }));
    await user.scrape({ [`process ${round}`]: [metric("counter", "c", 0, { values })] });
  }
  const shown = await user.scrape({ last: [counter("d", 1)] });
  assert.equal(shown.families.get("c")?.samples.size, 5_000);
  assert.equal(shown.sum("d"), 1);
  assert.equal(user.warnings.length, 1, user.warnings.join("\n"));
});

test("a count that is no number spoils neither the sum nor what is kept of the process", async () => {
  const user = open();
  const broken = (value: number | "NaN" | "Infinity"): UserMetric[] => [
    metric("counter", "c", value),
    metric("histogram", "h", 0, { values: [{ metricName: "h_sum", labels: {}, value }] }),
  ];
  await user.scrape({ a: broken(5), b: broken(1) });
  for (const value of ["NaN", "Infinity"] as const) {
    const shown = await user.scrape({ a: broken(value), b: broken(2), c: broken(value) });
    assert.deepEqual([shown.sum("c"), shown.sum("h_sum")], [7, 7]);
  }
  const after = await user.scrape({ b: broken(3) });
  assert.deepEqual([after.sum("c"), after.sum("h_sum")], [8, 8]);
  assert.deepEqual(user.warnings, [
    "the metric c of a service has a count that is no finite number: it is left as it was before",
    "the metric h of a service has a count that is no finite number: it is left as it was before",
  ]);
});

test("why a worker does not answer is said, once a minute for each", async () => {
  const user = open();
  const broken = new Error("worker 1: the database is away");
  for (let again = 0; again < 3; again++) await user.scrape({ a: [counter("c", 1)], b: broken, c: silent });
  assert.deepEqual(user.warnings, [
    "a scrape lacks what a service counts itself: worker 1: the database is away",
    "a scrape lacks what a service counts itself: no answer within 500 ms",
  ]);
});

test("quantiles of several workers are not added up", async () => {
  const user = open();
  const summary = (aggregator: UserMetric["aggregator"]): UserMetric => {
    const values = [
      { labels: { quantile: "0.5" }, value: 2 },
      { metricName: "s_count", labels: {}, value: 3 },
    ];
    return metric("summary", "s", 0, { aggregator, values });
  };
  const quantile = (shown: Exposition): unknown => shown.sum("s", { quantile: "0.5" });
  assert.equal(quantile(await user.scrape({ a: [summary("sum")] })), 2);
  const shown = await user.scrape({ a: [summary("sum")], b: [summary("sum")] });
  assert.deepEqual([quantile(shown), shown.sum("s_count")], [undefined, 6]);
  const most = open();
  assert.equal(quantile(await most.scrape({ a: [summary("max")], b: [summary("max")] })), 2);
});
