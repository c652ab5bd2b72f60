import assert from "node:assert/strict";
import { test } from "node:test";
import { showBytes, showDuration, table } from "#src/cli/table.js";

test("columns are as wide as their widest cell, numbers to the right", () => {
  const rows = [
    ["name", "open", "address"],
    ["a", 5, "x"],
    ["longer", 12_345, "y"],
  ];
  assert.deepEqual(table(rows), ["name     open  address", "a           5  x", "longer  12345  y"]);
  assert.deepEqual(table([]), []);
});

test("durations show their two largest units", () => {
  assert.equal(showDuration(0), "0s");
  assert.equal(showDuration(59_999), "59s");
  assert.equal(showDuration(3_600_000), "1h 0m");
  assert.equal(showDuration(90_061_000), "1d 1h");
});

test("sizes show one decimal of the unit that fits", () => {
  assert.equal(showBytes(1023), "1023 B");
  assert.equal(showBytes(1536), "1.5 KiB");
  assert.equal(showBytes(53.1 * 1024 * 1024), "53.1 MiB");
});
