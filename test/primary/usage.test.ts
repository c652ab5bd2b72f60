import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { usageOf } from "#src/primary/usage.js";
import { openDescriptors } from "../support/census.js";

const ofProcesses = (): string[] => openDescriptors().filter((each) => /\/proc\/\d+\/stat$/.test(each));

test("memory and CPU of processes; those that have gone are left out", async () => {
  const child = spawn("true", { stdio: "ignore" });
  await once(child, "close");
  const usage = await usageOf([process.pid, child.pid ?? 0]);
  assert.deepEqual([...usage.keys()], [process.pid]);
  assert.ok((usage.get(process.pid)?.memoryBytes ?? 0) > 1 << 20);
});

test("however often it is asked, also at once, it holds one descriptor for each process", async () => {
  const pids = [process.pid, process.ppid];
  for (let round = 0; round < 3; round++) await Promise.all([1, 2, 3].map(() => usageOf(pids)));
  assert.ok(ofProcesses().length <= pids.length, ofProcesses().join("\n"));
});
