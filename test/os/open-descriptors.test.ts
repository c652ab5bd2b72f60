import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { OpenDescriptors } from "#src/os/open-descriptors.js";

/** The one that the list is read by is on it. */
const listed = (): number => readdirSync("/proc/self/fd").length - 1;

test("as many as are listed, whether the kernel says how many or not", () => {
  for (const open of [new OpenDescriptors(), new OpenDescriptors(() => 0)]) {
    assert.equal(open.count(0), listed());
    const fd = openSync("/dev/null", "r");
    assert.equal(open.count(0), listed());
    closeSync(fd);
  }
});

test("where they would have to be listed, that is not done with many connections", () => {
  const open = new OpenDescriptors(() => 0);
  const before = listed();
  assert.equal(open.count(0), before);
  const fd = openSync("/dev/null", "r");
  assert.equal(open.count(10_000), before + 10_000);
  closeSync(fd);
});

test("without /proc it is 0", () => {
  const open = new OpenDescriptors(() => {
    throw new Error("ENOENT");
  });
  assert.equal(open.count(5), 0);
});
