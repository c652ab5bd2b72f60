import assert from "node:assert/strict";
import { test } from "node:test";
import { Alarm } from "#src/connection/alarm.js";
import { until } from "../support/until.js";

const NEVER = Number.POSITIVE_INFINITY;

test("looks at a slot at the time that was named or some ms later, again when told so, and rests in between", async (t) => {
  const looks: { slot: number; at: number }[] = [];
  let again = NEVER;
  const alarm = new Alarm(
    () => performance.now(),
    (slot, now) => {
      looks.push({ slot, at: now });
      const next = again;
      again = NEVER;
      return next;
    },
  );
  t.after(() => alarm.end());
  for (const round of [1, 2]) {
    const start = performance.now();
    alarm.schedule(1, start + 30);
    alarm.schedule(2, start + 12);
    alarm.schedule(1, start + 60);
    again = start + 45;
    await until("three looks", () => looks.length === 3);
    const [first, second, third] = looks.splice(0) as [
      { slot: number; at: number },
      (typeof looks)[0],
      (typeof looks)[0],
    ];
    assert.deepEqual([first.slot, second.slot, third.slot], [2, 1, 2], `round ${round}`);
    assert.ok(first.at >= start + 12 && second.at >= start + 30 && third.at >= start + 45);
  }
});
