import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { Gate } from "#src/connection/gate.js";
import { TICK_MS } from "#src/engine/layout.js";
import { Shedding } from "#src/worker/shedding.js";

const MiB = 1024 * 1024;

/** A worker whose ticks come so late, and whose memory is what the test says. */
function watched(): {
  gate: Gate;
  shedding: Shedding;
  memory: { bytes: number };
  ticks(count: number, lateMs: number): void;
} {
  const gate = new Gate();
  const memory = { bytes: 50 * MiB };
  const shedding = new Shedding({ gate, log: pino({ level: "silent" }), memory: () => memory.bytes });
  shedding.configure({ queueDelay: "off", loopDelay: 100, memory: 100 * MiB });
  let now = 1_000;
  return {
    gate,
    shedding,
    memory,
    ticks(count, lateMs) {
      for (let each = 0; each < count; each++) {
        now += TICK_MS + lateMs;
        shedding.tick(now);
      }
    },
  };
}

test("a loop that is late for a while sheds more and more, and less and less once it is in time", () => {
  const { gate, ticks } = watched();
  ticks(20, 5);
  assert.equal(gate.shared, 0);
  ticks(4, 300);
  const begun = gate.shared;
  assert.ok(begun > 0 && begun < 0.5, String(begun));
  ticks(30, 300);
  assert.ok(gate.shared <= 0.9, "something is always let through");
  assert.ok(gate.shared > begun);
  const most = gate.shared;
  ticks(20, 80);
  assert.equal(gate.shared, most, "near the bound it stays");
  ticks(10, 5);
  assert.ok(gate.shared > 0 && gate.shared < most, "slowly");
  ticks(20, 5);
  assert.deepEqual([gate.shared, gate.alerts], [0, 0]);
});

test("one long turn, or two, are no overload", () => {
  const { gate, ticks } = watched();
  for (let each = 0; each < 10; each++) {
    ticks(2, 1_000);
    ticks(5, 3);
    assert.equal(gate.shared, 0);
  }
});

test("memory over its bound sheds, until it is clearly below", () => {
  const { gate, memory, ticks } = watched();
  memory.bytes = 101 * MiB;
  ticks(60, 0);
  assert.ok(gate.shared > 0.1);
  assert.equal(gate.refuses(0) ?? gate.refuses(0) ?? gate.refuses(0) ?? gate.refuses(0), "memory");
  const most = gate.shared;
  memory.bytes = 98 * MiB;
  ticks(60, 0);
  assert.equal(gate.shared, most);
  memory.bytes = 60 * MiB;
  ticks(600, 0);
  assert.equal(gate.shared, 0);
});

test("off is off, also while it is shedding", () => {
  const { gate, shedding, memory, ticks } = watched();
  memory.bytes = 1_000 * MiB;
  ticks(40, 500);
  assert.ok(gate.shared > 0);
  shedding.configure({ queueDelay: "off", loopDelay: "off", memory: "off" });
  ticks(1_000, 500);
  assert.equal(gate.shared, 0);
});
