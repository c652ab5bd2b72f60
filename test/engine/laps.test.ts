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
  laps.begin();
  now = 107;
  assert.equal(laps.end(), 7);
  now = 108;
  laps.begin();
  assert.equal(laps.begun, 107);
  now = 110;
  assert.equal(laps.end(), 3);
  assert.equal(reads, 3);
  now = 200;
  laps.forget();
  laps.begin();
  now = 201;
  assert.equal(laps.end(), 1);
});

test("between rounds no lap is kept", () => {
  let now = 100;
  const laps = new Laps(() => now);
  laps.start();
  laps.stop();
  for (let nth = 0; nth < 2; nth++) {
    now += 50;
    laps.begin();
    now += 2;
    assert.equal(laps.end(), 2);
  }
});

test("a lap within a lap is part of it", () => {
  let now = 100;
  const laps = new Laps(() => now);
  laps.begin();
  now += 3;
  const outer = laps.nest();
  now += 4;
  assert.equal(laps.end(), 4);
  laps.resume(outer);
  now += 5;
  assert.equal(laps.end(), 12);
});
