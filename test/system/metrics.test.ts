/** Counters of a server whose workers die and are replaced. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { COUNTING, writeCountingService } from "../support/counting-service.js";
import type { Exposition } from "../support/exposition.js";
import { startMetricsRig } from "../support/metrics-rig.js";
import { startTraffic } from "../support/steady-traffic.js";
import { until } from "../support/until.js";

/** Series of counters, and of what histograms count. */
function counts({ families }: Exposition): Map<string, number> {
  const entries = [...families.values()].flatMap(({ type, samples }) => (type === "gauge" ? [] : [...samples]));
  return new Map(entries);
}

test("no counter ever goes back while workers are killed, reloaded and scaled", async (t) => {
  const folder = writeCountingService(t);
  const rig = await startMetricsRig(t, COUNTING, folder);
  startTraffic(t, { lines: rig.ports[0] ?? 0 });
  let before = counts(await rig.scrape());
  let scrapes = 0;
  const scrapeOn = async (): Promise<void> => {
    const after = counts(await rig.scrape());
    for (const [series, value] of before) {
      const now = after.get(series);
      assert.ok(now !== undefined, `${series} is gone`);
      assert.ok(now >= value, `${series} went back from ${value} to ${now}`);
    }
    before = after;
    scrapes++;
  };
  const during = async (what: Promise<unknown>): Promise<void> => {
    let done = false;
    const over = what.finally(() => {
      done = true;
    });
    over.catch(() => {});
    while (!done) await scrapeOn();
    await over;
  };
  const { primary } = rig;
  for (let round = 0; round < 2; round++) {
    for (const slot of [0, 1]) {
      const victim = primary.crew.ownerOf(slot) ?? assert.fail();
      victim.kill();
      await during(
        until("it is replaced", () => primary.crew.accepting.length === 2 && primary.crew.ownerOf(slot) !== victim),
      );
    }
    await during(primary.reload(true));
    await during(primary.scale(3));
    await during(primary.scale(2));
  }
  await scrapeOn();
  assert.ok(scrapes > 20, `${scrapes} scrapes`);
  assert.ok([...before].some(([series, value]) => series.startsWith("game_messages_total") && value > 0));
  assert.equal((await rig.scrape()).sum("headrace_worker_restarts_total"), 4);
});
