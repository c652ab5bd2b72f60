import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { sampleUsage, usageOf } from "#src/primary/usage.js";
import { descriptorsOf } from "../support/processes.js";

/** Beyond the largest there can be (pid_max). */
const NOBODY = 2 ** 22 + 1;

test("who has gone is left out, and keeps nobody from being told", async (t) => {
  const child = spawn("sleep", ["60"]);
  t.after(() => child.kill("SIGKILL"));
  const pid = child.pid ?? assert.fail();
  assert.deepEqual([...(await sampleUsage([process.pid, NOBODY, pid])).keys()].sort(), [process.pid, pid].sort());
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.deepEqual([...(await sampleUsage([process.pid, pid])).keys()], [process.pid]);
  assert.equal((await sampleUsage([NOBODY])).size, 0);
  assert.equal((await sampleUsage([])).size, 0);
});

test("asked for by many at the same time, each gets an answer, and one descriptor is open at most", async () => {
  const [usage, ...samples] = await Promise.all([
    usageOf([process.pid]),
    ...Array.from({ length: 20 }, () => sampleUsage([process.pid, NOBODY])),
  ]);
  assert.ok((usage?.get(process.pid)?.memoryBytes ?? 0) > 1024 * 1024);
  for (const sample of samples) assert.ok((sample.get(process.pid)?.cpuMs ?? 0) > 0);
  const open = descriptorsOf(process.pid).filter((target) => target === `/proc/${process.pid}/stat`);
  assert.ok(open.length <= 1, `${open.length} descriptors`);
});
