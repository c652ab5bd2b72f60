import assert from "node:assert/strict";
import { test } from "node:test";
import { FAMILIES } from "#src/admin/metrics.js";
import { startMetricsRig } from "../support/metrics-rig.js";

test("every family has series while the server serves", async (t) => {
  const rig = await startMetricsRig(t, {
    workers: 2,
    listeners: [{ name: "lines", address: "127.0.0.1:0", service: "echo-line" }],
  });
  const shown = await rig.scrape();
  for (const { name, type, help } of FAMILIES) {
    const family = shown.families.get(name) ?? assert.fail(name);
    console.log(name, family.samples.size);
    assert.deepEqual([family.type, family.help], [type, help]);
  }
});
