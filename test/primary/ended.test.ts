/** Waiting for a process that is nobody's child here. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { ended } from "#src/primary/ended.js";

test("it is waited for until it has ended, and no longer than asked", async (t) => {
  const child = spawn("sleep", ["60"]);
  t.after(() => child.kill("SIGKILL"));
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const began = performance.now();
  await ended(pid, 50);
  assert.ok(performance.now() - began >= 50);
  const gone = ended(pid, 20_000);
  child.kill("SIGKILL");
  await gone;
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
  assert.ok(performance.now() - began < 10_000);
});
