/** Profiles go into files of their own, never into what stands there already. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { profileCpu, snapshotHeap } from "#src/os/profile.js";
import { makeFolder } from "../support/folder.js";

test("a heap snapshot is a file of its own that nobody else can read", (t) => {
  const path = join(makeFolder(t), "x.heapsnapshot");
  snapshotHeap(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(JSON.parse(readFileSync(path, "utf8")).snapshot);
});

test("whatever stands at the path is left alone, and no link is followed", async (t) => {
  const folder = makeFolder(t);
  const [file, link, nowhere] = [join(folder, "file"), join(folder, "link"), join(folder, "nowhere")];
  writeFileSync(file, "mine");
  symlinkSync(nowhere, link);
  for (const path of [file, link]) {
    assert.throws(() => snapshotHeap(path), /EEXIST/);
    await assert.rejects(profileCpu(path, 0, new AbortController().signal), /EEXIST/);
  }
  assert.equal(readFileSync(file, "utf8"), "mine");
  assert.ok(!existsSync(nowhere));
});
