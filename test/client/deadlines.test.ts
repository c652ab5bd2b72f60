import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Call } from "#src/client/call.js";
import { CallDeadlines } from "#src/client/deadlines.js";
import { WaitingCalls } from "#src/client/waiting.js";
import { until } from "../support/until.js";

const nobody = { giveUp(): void {} };
const callOf = (ms: number, now: number = performance.now()): Call => new Call(nobody, "", {}, now, ms, undefined);

test("whatever was added and removed in whatever order, calls expire in the order of their deadlines", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.boolean()), { maxLength: 60 }),
      async (plan) => {
        const expired: Call[] = [];
        const deadlines = new CallDeadlines((call) => expired.push(call));
        const now = performance.now();
        const calls = plan.map(([ms]) => callOf(ms, now));
        for (const call of calls) deadlines.add(call);
        const kept = calls.filter((call, index) => {
          if (plan[index]?.[1]) return true;
          deadlines.remove(call);
          deadlines.remove(call);
          return false;
        });
        assert.equal(deadlines.size, kept.length);
        await until("all to expire", () => expired.length === kept.length);
        const due = kept.map((call) => call.deadlineAt).sort((a, b) => a - b);
        assert.deepEqual(
          expired.map((call) => call.deadlineAt),
          due,
        );
      },
    ),
    { numRuns: 20 },
  );
});

test("not before the deadline, and few milliseconds after it", async () => {
  const late: number[] = [];
  const deadlines = new CallDeadlines((call) => late.push(performance.now() - call.deadlineAt));
  const due = Array.from({ length: 30 }, (_, index) => 155 - 5 * index);
  for (const ms of due) deadlines.add(callOf(ms));
  await until("all", () => late.length === due.length);
  assert.ok(Math.min(...late) >= 0, late.join(" "));
  // Whoever else needs the CPU may hold up one or the other.
  assert.ok(Math.min(...late) < 10, late.join(" "));
});

test("a call that waits leaves the line from anywhere, and those behind it keep their order", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom("append", "prepend", "remove"), fc.nat()), { maxLength: 60 }),
      (plan) => {
        const line = new WaitingCalls();
        const model: Call[] = [];
        for (const [what, number] of plan) {
          const call = callOf(1);
          if (what === "append") model.push(call);
          if (what === "prepend") model.unshift(call);
          if (what !== "remove") line[what](call);
          const gone = model[number % Math.max(1, model.length)];
          if (what !== "remove" || !gone) continue;
          line.remove(gone);
          line.remove(gone);
          model.splice(model.indexOf(gone), 1);
        }
        assert.equal(line.size, model.length);
        const order: Call[] = [];
        for (let first = line.first; first; first = line.first) {
          order.push(first);
          line.remove(first);
        }
        assert.deepEqual(order, model);
      },
    ),
  );
});
