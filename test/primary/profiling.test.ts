/** What is left of profiles by a server that was killed. */
import assert from "node:assert/strict";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { removeProfiles } from "#src/primary/profiling.js";
import { makeFolder } from "../support/folder.js";

test("only files of this control socket's own are removed", (t) => {
  const folder = makeFolder(t);
  const others = [
    "b.sock.profile-0123456789abcdef.cpuprofile",
    "a.sock.profile-0123456789abcdef.txt",
    "a.sock.profile-mine.cpuprofile",
    "profile-0123456789abcdef.cpuprofile",
  ];
  const own = ["a.sock.profile-0123456789abcdef.cpuprofile", "a.sock.profile-fedcba9876543210.heapsnapshot"];
  for (const name of [...others, ...own]) writeFileSync(join(folder, name), "");
  removeProfiles(join(folder, "a.sock"));
  assert.deepEqual(readdirSync(folder).toSorted(), others.toSorted());
  removeProfiles(join(folder, "nowhere", "a.sock"));
});
