import assert from "node:assert/strict";
import { test } from "node:test";
import { Gate } from "#src/connection/gate.js";

const HIGH = 0;
const NORMAL = 1;
const LOW = 2;

/** How many of `count` requests are refused. */
function refused(gate: Gate, rank: number, count: number): number {
  let total = 0;
  for (let each = 0; each < count; each++) if (gate.refuses(rank)) total += 1;
  return total;
}

test("the share of all requests is refused, evenly spread", () => {
  const gate = new Gate();
  gate.share(0.25, "loop-delay");
  const outcomes = Array.from({ length: 100 }, () => gate.refuses(NORMAL) !== undefined);
  assert.equal(outcomes.filter(Boolean).length, 25);
  for (let at = 0; at < 100; at += 4) assert.equal(outcomes.slice(at, at + 4).filter(Boolean).length, 1);
  assert.equal(
    gate.refuses(NORMAL) ?? gate.refuses(NORMAL) ?? gate.refuses(NORMAL) ?? gate.refuses(NORMAL),
    "loop-delay",
  );
});

test("the lowest priority is refused first, the highest last", () => {
  const gate = new Gate();
  const arrive = (): number[] => [refused(gate, HIGH, 10), refused(gate, NORMAL, 60), refused(gate, LOW, 30)];
  const after = (share: number): number[] => {
    gate.share(share, "memory");
    arrive();
    gate.share(share, "memory");
    return arrive();
  };
  assert.deepEqual(after(0.15), [0, 0, 15]);
  assert.deepEqual(after(0.3), [0, 0, 30]);
  assert.deepEqual(after(0.6), [0, 30, 30]);
  const most = after(0.95);
  assert.deepEqual(most, [5, 60, 30]);
});

test("an alert stands exactly while there is a share", () => {
  const gate = new Gate();
  for (const share of [0.1, 0.2, 0, 0, 0.3]) {
    gate.share(share, "memory");
    assert.equal(gate.alerts, share > 0 ? 1 : 0);
  }
  gate.share(0, "memory");
  assert.equal(refused(gate, LOW, 100), 0);
});
