import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectBackoff } from "#src/client/backoff.js";
import { ClientCounters, DURATION_BUCKETS_MS } from "#src/client/counters.js";
import { RetryBudget } from "#src/client/retries.js";

test("a pause twice as long after each failure, give or take a fifth, up to the longest; none after a success", () => {
  const backoff = new ConnectBackoff(1_000);
  assert.equal(backoff.pauseMs(0), 0);
  for (const about of [100, 200, 400, 800, 1_000, 1_000]) {
    backoff.failed(5_000);
    const pause = backoff.pauseMs(5_000);
    assert.ok(pause >= 0.8 * about && pause <= 1.2 * about, `${pause} for ${about}`);
    assert.equal(backoff.pauseMs(5_000 + pause), 0);
  }
  backoff.succeeded();
  assert.deepEqual([backoff.failures, backoff.pauseMs(5_000)], [0, 0]);
});

test("retries are a part of the calls, with a few saved up, and none without calls", () => {
  const budget = new RetryBudget(0.1);
  assert.equal(budget.spend(), false);
  let spent = 0;
  for (let call = 0; call < 1_000; call++) {
    budget.earn();
    if (budget.spend()) spent += 1;
  }
  assert.ok(spent >= 95 && spent <= 100, String(spent));
  for (let call = 0; call < 100_000; call++) budget.earn();
  for (let retry = 0; retry < 10; retry++) assert.equal(budget.spend(), true);
  assert.equal(budget.spend(), false);
});

test("a duration is in the bucket whose bound it does not pass", () => {
  const counters = new ClientCounters();
  for (const ms of [0.5, 1, 1.5, 10_000, 10_001]) counters.end("ok", ms);
  const { durations, durationsMs, ended } = counters.snapshot();
  assert.equal(durations.length, DURATION_BUCKETS_MS.length + 1);
  assert.deepEqual([durations[0], durations[1], durations.at(-2), durations.at(-1)], [2, 1, 1, 1]);
  assert.deepEqual([durationsMs, ended.ok], [20_004, 5]);
});
