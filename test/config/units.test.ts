import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { COUNT, DURATION, SIZE } from "#src/config/units.js";

test("durations are read in ms", () => {
  assert.equal(DURATION.read("500ms"), 500);
  assert.equal(DURATION.read("10s"), 10_000);
  assert.equal(DURATION.read("2m"), 120_000);
  assert.equal(DURATION.read("1h"), 3_600_000);
});

test("sizes are read in bytes", () => {
  assert.equal(SIZE.read(4096), 4096);
  assert.equal(SIZE.read("4096"), 4096);
  assert.equal(SIZE.read("64KiB"), 65_536);
  assert.equal(SIZE.read("1MiB"), 1_048_576);
  assert.equal(SIZE.read("1GiB"), 1_073_741_824);
});

test("what is not exactly a duration or a size is refused", () => {
  for (const given of [
    "",
    "10",
    10,
    "s",
    "1.5s",
    "-1s",
    "+1s",
    " 1s",
    "1 s",
    "1S",
    "1d",
    "1e3s",
    "10s10s",
    null,
    true,
    {},
    [],
  ]) {
    assert.equal(DURATION.read(given), undefined, JSON.stringify(given));
  }
  for (const given of [
    "",
    "1kB",
    "1MB",
    "1M",
    "1mib",
    "1.5MiB",
    "-1",
    -1,
    1.5,
    Number.NaN,
    2 ** 60,
    "1s",
    null,
    true,
  ]) {
    assert.equal(SIZE.read(given), undefined, JSON.stringify(given));
  }
  for (const given of ["x", "0x10", "1e3", -1, 0.5, Number.POSITIVE_INFINITY, [], [5]]) {
    assert.equal(COUNT.read(given), undefined, JSON.stringify(given));
  }
});

test("writing and reading give the value back", () => {
  for (const unit of [DURATION, SIZE, COUNT]) {
    fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 40 }), (value) => unit.read(unit.write(value)) === value));
  }
  assert.equal(DURATION.write(90_000), "90s");
  assert.equal(DURATION.write(0), "0");
  assert.equal(SIZE.write(65_537), "65537");
});

test("no value makes reading throw", () => {
  fc.assert(
    fc.property(fc.anything(), (given) => {
      for (const unit of [DURATION, SIZE, COUNT]) unit.read(given);
    }),
  );
});
