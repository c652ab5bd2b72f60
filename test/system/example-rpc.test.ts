/** examples/rpc, as its one command shows it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "#src/os/addon.js";

const CALLS = 4;
const BUDGET_MS = 500;

function numbers(output: string, pattern: RegExp): number[] {
  return (pattern.exec(output)?.[1] ?? "").split(",").map(Number);
}

test("three back services, one of them slow: answers within the budget, and each was told what was left", async () => {
  const demo = join(packageRoot(), "examples", "rpc", "demo.js");
  const { stdout } = await promisify(execFile)(process.execPath, [demo, String(CALLS)], { timeout: 60_000 });
  const answers = [...stdout.matchAll(/^call \d+: (\d+) ms: (.*)$/gm)];
  assert.equal(answers.length, CALLS, stdout);
  for (const [index, [, ms, reply = ""]] of answers.entries()) {
    assert.ok(Number(ms) <= BUDGET_MS + 20, stdout);
    assert.deepEqual(JSON.parse(reply), {
      user: `users of user ${index + 1}`,
      orders: `orders of user ${index + 1}`,
      offers: "missing (deadline-exceeded)",
    });
  }
  // Less for those that are asked after `users` has taken its 80 ms; never more than the budget. Both are whole
  // milliseconds of one deadline, and a timer may end up to one early: 2 ms in all.
  const users = numbers(stdout, /^users was told: ([\d, ]+) ms$/m);
  const offers = numbers(stdout, /^offers was told: ([\d, ]+) ms$/m);
  assert.deepEqual([users.length, offers.length], [CALLS, CALLS], stdout);
  for (const [index, told] of users.entries()) {
    assert.ok(told > 0 && told <= BUDGET_MS, stdout);
    assert.ok((offers[index] ?? Number.NaN) <= told - 80 + 2, stdout);
  }
  assert.match(stdout, /the budget of 500 ms was kept/);
});
