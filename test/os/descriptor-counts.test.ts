import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { test } from "node:test";
import { descriptorLimitOf, ownDescriptors, parseDescriptorLimit } from "#src/os/descriptor-counts.js";
import { closeDescriptor, openFilesLimit } from "#src/os/descriptors.js";

test("the soft limit", () => {
  const line = (soft: string): string =>
    `Max processes  1  2  processes\nMax open files            ${soft}   4096   files \n`;
  assert.equal(parseDescriptorLimit(line("1024")), 1024);
  assert.equal(parseDescriptorLimit(line("unlimited")), Number.POSITIVE_INFINITY);
  assert.equal(parseDescriptorLimit(""), undefined);
});

test("of this process, and of one that has gone", async () => {
  assert.equal(await descriptorLimitOf(process.pid), openFilesLimit());
  // Beyond the largest pid there can be (pid_max).
  assert.equal(await descriptorLimitOf(2 ** 22 + 1), undefined);
});

test("one more open descriptor is one more", async () => {
  const before = (await ownDescriptors()) ?? assert.fail();
  const fd = openSync("/dev/null", "r");
  assert.equal(await ownDescriptors(), before + 1);
  closeDescriptor(fd);
  assert.equal(await ownDescriptors(), before);
});
