/** heap-growth.mjs: what a program keeps is shown under the name that keeps it; what it does not keep is not shown. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeFolder } from "../support/folder.js";
import { RUNBOOK } from "../support/runbook.js";

const SCRIPT = join(RUNBOOK, "heap-growth.mjs");
const KEPT = 5_000;

test("a list that grows in each connection's state is found by its name", (t) => {
  const folder = makeFolder(t);
  const program = `
    import { writeHeapSnapshot } from "node:v8";
    class Connection { state = { history: [], last: "" }; }
    const connections = Array.from({ length: 50 }, () => new Connection());
    function talk(times) {
      for (let time = 0; time < times; time++) for (const { state } of connections) {
        state.last = "message " + Math.random();
        state.history.push("message " + Math.random());
      }
    }
    talk(1);
    writeHeapSnapshot("before.heapsnapshot");
    talk(${KEPT / 50});
    writeHeapSnapshot("after.heapsnapshot");
    console.log(connections.length);`;
  execFileSync(process.execPath, ["--input-type=module", "--eval", program], { cwd: folder, stdio: "ignore" });
  const args = [SCRIPT, "before.heapsnapshot", "after.heapsnapshot", "--top", "3"];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  const [, first = ""] = stdout.split("\n");
  assert.match(first, /KiB .* Object\.history$/);
  assert.ok(Number(first.trim().split(/\s+/)[2]) >= KEPT, stdout);
  assert.ok(!stdout.includes("Object.last"), stdout);
});

test("what is no snapshot is told in a line", (t) => {
  const folder = makeFolder(t);
  const [torn, none] = [join(folder, "torn"), join(folder, "none")];
  writeFileSync(torn, '{"snapshot":');
  for (const [args, code] of [
    [[torn, torn], 1],
    [[none, none], 1],
    [[torn], 2],
    [[torn, torn, "--top"], 2],
    [["--help"], 0],
  ] as const) {
    const { status, stderr } = spawnSync(process.execPath, [SCRIPT, ...args], { encoding: "utf8" });
    assert.equal(status, code, `${args.join(" ")}: ${stderr}`);
    assert.ok(stderr.split("\n").length <= 2, stderr);
  }
});
