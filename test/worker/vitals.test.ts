/** What a worker finds out about itself, in this process: the figures are real, so only what is sure of them is asserted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { NO_TICKET } from "#src/connection/in-flight.js";
import { Timing } from "#src/connection/timing.js";
import { Laps } from "#src/engine/laps.js";
import { OpenDescriptors } from "#src/os/open-descriptors.js";
import { Scoreboard } from "#src/os/scoreboard.js";
import { Vitals } from "#src/worker/vitals.js";
import { until } from "../support/until.js";

function open(t: { after(done: () => void): void }) {
  const block = Scoreboard.create().block(0);
  const clock = { ms: 1_000 };
  const timing = new Timing(new Laps(() => clock.ms));
  const vitals = new Vitals({ block, timing, descriptors: new OpenDescriptors(), connections: () => 0 });
  t.after(() => vitals.end());
  /** Ticks that come so late each, ms. */
  const ticks = (...late: number[]): void => {
    for (const ms of late) {
      clock.ms += 50 + ms;
      vitals.look(clock.ms);
    }
  };
  return { block, timing, vitals, clock, ticks };
}

test("the heap, the descriptors, and the age of the oldest request, once a second", (t) => {
  const { block, timing, clock, ticks } = open(t);
  ticks(0);
  assert.ok(block.get("heapBytes") > 1 << 20);
  assert.ok(block.get("openFds") >= 3);
  assert.equal(block.get("oldestSeconds"), 0);
  timing.laps.begin();
  const ticket = timing.inFlight.take(clock.ms, NO_TICKET);
  timing.leave();
  ticks(900);
  assert.equal(block.get("oldestSeconds"), 0, "not yet");
  ticks(0);
  assert.equal(block.get("oldestSeconds"), 1);
  timing.inFlight.give(ticket, ticket);
  ticks(1_000);
  assert.equal(block.get("oldestSeconds"), 0);
});

test("the loop is as late as its ticks are, and the longest delay is that of a minute", (t) => {
  const { block, ticks } = open(t);
  const delays = (): number[] =>
    (["loopDelayMean", "loopDelayP99", "loopDelayMax"] as const).map((field) => block.get(field));
  ticks(0);
  ticks(...new Array<number>(20).fill(0));
  assert.deepEqual(delays(), [0, 0, 0]);
  ticks(...new Array<number>(9).fill(0), 550);
  assert.deepEqual(delays(), [0.055, 0.55, 0.55]);
  ticks(2_000);
  assert.deepEqual(delays(), [2, 2, 2]);
  const aSecond = new Array<number>(20).fill(0);
  for (let second = 0; second < 59; second++) ticks(...aSecond);
  assert.deepEqual(delays(), [0, 0, 2]);
  ticks(...aSecond);
  assert.deepEqual(delays(), [0, 0, 0]);
});

test("garbage collections are counted by kind, with what they took", async (t) => {
  const { block } = open(t);
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  await until("the collection is counted", () => block.get("gcMajor") > 0);
  assert.ok(block.get("gcMajorSeconds") > 0);
});

test("what JavaScript took is divided among decoding and the rest, and neither ever shrinks", (t) => {
  const { block, timing, vitals } = open(t);
  const steps = [
    { script: 1, decode: 0.25, parts: [0.25, 0.75] },
    // The estimate may be ahead of what was measured.
    { script: 1.1, decode: 0.75, parts: [0.35, 0.75] },
    { script: 2.1, decode: 0.75, parts: [0.75, 1.35] },
  ];
  for (const [nth, { script, decode, parts }] of steps.entries()) {
    block.set("scriptSeconds", script);
    timing.decodeSeconds = decode;
    vitals.look(nth * 1_000);
    const [decoding = 0, rest = 0] = parts;
    assert.ok(Math.abs(block.get("decodeSeconds") - decoding) < 1e-9);
    assert.ok(Math.abs(block.get("serviceSeconds") - rest) < 1e-9);
  }
});
