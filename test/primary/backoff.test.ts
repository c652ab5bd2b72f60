import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "#src/primary/backoff.js";

const middle = (): number => 0.5;

test("an end after a sound start is replaced at once", () => {
  const backoff = new Backoff(middle);
  backoff.ended(1_000);
  assert.equal(backoff.pauseMs(false), 0);
});

test("each failed start in a row doubles the pause, up to 30 s", () => {
  const backoff = new Backoff(middle);
  const pauses = Array.from({ length: 12 }, () => {
    backoff.ended(undefined);
    return backoff.pauseMs(false);
  });
  assert.deepEqual(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
});

test("the pause varies by a fifth either way", () => {
  const [least, most] = [new Backoff(() => 0), new Backoff(() => 1)];
  least.ended(0);
  most.ended(999);
  assert.deepEqual(
    [least, most].map((each) => Math.round(each.pauseMs(false))),
    [80, 120],
  );
});

test("a minute of life forgives earlier failures, a shorter one does not", () => {
  const backoff = new Backoff(middle);
  backoff.ended(undefined);
  backoff.ended(59_999);
  assert.equal(backoff.pauseMs(false), 100);
  backoff.ended(60_000);
  assert.equal(backoff.pauseMs(false), 0);
});

test("nobody waits while no other worker accepts, until it is a loop", () => {
  const backoff = new Backoff(middle);
  for (let failures = 1; failures <= 10; failures++) {
    backoff.ended(undefined);
    assert.equal(backoff.pauseMs(true), 0);
  }
  backoff.ended(undefined);
  assert.equal(backoff.pauseMs(true), 1_000);
});
