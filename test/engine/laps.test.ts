import assert from "node:assert/strict";
import { test } from "node:test";
import { Laps } from "#src/engine/laps.js";

test("in a round a lap begins where the last one ended, and the clock is read once for each", () => {
  let now = 100;
  let reads = 0;
  const laps = new Laps(() => {
    reads += 1;
    return now;
  });
  laps.start();
  assert.equal(laps.begin(), 100);
  now = 107;
  assert.equal(laps.end(), 107);
  now = 108;
  assert.equal(laps.begin(), 107);
  now = 110;
  assert.equal(laps.end(), 110);
  assert.equal(reads, 3);
  now = 200;
  laps.forget();
  assert.equal(laps.begin(), 200);
});

test("between rounds no lap is kept", () => {
  let now = 100;
  const laps = new Laps(() => now);
  laps.start();
  laps.stop();
  now = 150;
  assert.equal(laps.begin(), 150);
  assert.equal(laps.end(), 150);
  now = 180;
  assert.equal(laps.begin(), 180);
});
