import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Wheel } from "#src/connection/wheel.js";

const TICK = 50;
const NEVER = Number.POSITIVE_INFINITY;

test("every slot is looked at when it is due, at most a tick late, and never after it is gone", () => {
  const command = fc.oneof(
    fc.record({
      kind: fc.constant("start" as const),
      slot: fc.nat({ max: 5 }),
      after: fc.integer({ min: 1, max: 200_000 }),
    }),
    fc.record({
      kind: fc.constant("sooner" as const),
      slot: fc.nat({ max: 5 }),
      after: fc.integer({ min: 1, max: 5_000 }),
    }),
    fc.record({ kind: fc.constant("pass" as const), slot: fc.constant(0), after: fc.integer({ min: 1, max: 70_000 }) }),
    fc.record({ kind: fc.constant("stop" as const), slot: fc.nat({ max: 5 }), after: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(command, { maxLength: 40 }), fc.integer({ min: 0, max: 10_000_000 }), (commands, start) => {
      let now = start;
      const due = new Map<number, number>();
      const wheel = new Wheel(now, (slot, at) => {
        const wanted = due.get(slot);
        if (wanted === undefined) return NEVER;
        if (wanted > at) return wanted;
        due.delete(slot);
        return NEVER;
      });
      for (const { kind, slot, after } of commands) {
        if (kind === "pass") {
          for (const end = now + after; now < end; ) {
            now = Math.min(now + TICK, end);
            wheel.advance(now);
            for (const [each, at] of due) assert.ok(now < at + 2 * TICK, `slot ${each} was due at ${at}, it is ${now}`);
          }
        } else if (kind === "start") {
          due.set(slot, now + after);
          wheel.start(slot, now + after);
        } else if (kind === "stop") {
          due.delete(slot);
        } else if (due.has(slot)) {
          due.set(slot, Math.min(due.get(slot) as number, now + after));
          wheel.schedule(slot, now + after);
        }
      }
    }),
    { numRuns: 300 },
  );
});

test("after any standstill one advance finds everything that is due", () => {
  for (const pause of [TICK, 1_000, 1024 * TICK, 1025 * TICK, 5 * 1024 * TICK, 100_000_000]) {
    const seen = new Set<number>();
    let now = 12_345;
    const wheel = new Wheel(now, (slot) => {
      seen.add(slot);
      return NEVER;
    });
    const slots = Array.from({ length: 2000 }, (_, slot) => slot);
    for (const slot of slots) wheel.start(slot, now + 1 + (slot * pause) / 2000);
    now += pause + TICK;
    wheel.advance(now);
    assert.equal(seen.size, slots.length, `after ${pause} ms`);
  }
});

test("a slot's work is one look per period, however often it is scheduled for the same or later", () => {
  let looks = 0;
  let now = 0;
  const wheel = new Wheel(now, (_slot, at) => {
    looks += 1;
    return at + 10_000;
  });
  wheel.start(1, 10_000);
  for (; now < 100_000; now += 10) {
    wheel.schedule(1, now + 60_000);
    wheel.advance(now);
  }
  assert.ok(looks <= 10, `${looks} looks`);
});
