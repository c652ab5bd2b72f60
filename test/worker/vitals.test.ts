/** What a worker finds out about itself, in this process: the figures are real, so only what is sure of them is asserted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Timing } from "#src/connection/timing.js";
import { OpenDescriptors } from "#src/os/open-descriptors.js";
import { Scoreboard } from "#src/os/scoreboard.js";
import { Vitals } from "#src/worker/vitals.js";
import { until } from "../support/until.js";

function open(t: { after(done: () => void): void }) {
  const block = Scoreboard.create().block(0);
  const timing = new Timing();
  const vitals = new Vitals({ block, timing, descriptors: new OpenDescriptors(), connections: () => 0 });
  t.after(() => vitals.end());
  return { block, timing, vitals };
}

test("the loop's delay, the heap, the descriptors, and the age of the oldest request, once a second", async (t) => {
  const { block, timing, vitals } = open(t);
  vitals.look(0);
  assert.ok(block.get("heapBytes") > 1 << 20);
  assert.ok(block.get("openFds") >= 3);
  assert.equal(block.get("oldestSeconds"), 0);
  timing.laps.begin();
  const ticket = timing.inFlight.take(timing.laps.begun, -1);
  timing.leave();
  vitals.look(999);
  assert.equal(block.get("oldestSeconds"), 0, "not yet");
  let now = 1_000;
  await until("a delay", () => {
    const end = performance.now() + 120;
    while (performance.now() < end);
    now += 1_000;
    vitals.look(now);
    return block.get("loopDelayMax") >= 0.05;
  });
  assert.ok(block.get("oldestSeconds") >= 0.12);
  assert.ok(block.get("loopDelayMax") >= block.get("loopDelayP99"));
  assert.ok(block.get("loopDelayP99") >= block.get("loopDelayMean"));
  timing.inFlight.give(ticket, ticket);
  vitals.look(now + 1_000);
  assert.equal(block.get("oldestSeconds"), 0);
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
