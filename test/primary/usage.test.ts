/** The usage of processes costs no descriptor that stays, however often and by how many at once it is asked for. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { usageOf } from "#src/primary/usage.js";
import { descriptorsOf } from "../support/processes.js";

test("one descriptor a process, however often and by how many at once it is asked", async () => {
  const pids = [process.pid, process.ppid];
  const held = (): number => descriptorsOf(process.pid).filter((link) => /^\/proc\/\d+\/stat$/.test(link)).length;
  await Promise.all([usageOf(pids), usageOf(pids), usageOf(pids)]);
  await usageOf(pids);
  const usage = await usageOf(pids);
  assert.equal(held(), 2);
  for (const pid of pids) assert.ok((usage.get(pid)?.memoryBytes ?? 0) > 0);
});
