import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { choose } from "#src/client/choose.js";

const loads = (...values: number[]): { load: number }[] => values.map((load) => ({ load }));
const any = (): boolean => true;

test("of two that are drawn the less loaded one", () => {
  const [idle, busy] = loads(1, 5);
  assert.ok(idle && busy);
  for (let i = 0; i < 100; i++) assert.equal(choose([busy, idle], any), idle);
});

test("never one that does not fit, and one that does whenever there is any", () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 20 }), (fits) => {
      const targets = fits.map((fit, load) => ({ fit, load }));
      const chosen = choose(targets, ({ fit }) => fit);
      assert.equal(chosen?.fit ?? false, fits.includes(true));
    }),
  );
});

test("equal targets get equal shares; the most loaded one gets nothing, and no other is left out", () => {
  const targets = loads(0, 0, 0, 9);
  const counts = targets.map(() => 0);
  for (let i = 0; i < 6_000; i++) {
    const at = targets.indexOf(choose(targets, any) as { load: number });
    counts[at] = (counts[at] as number) + 1;
  }
  assert.equal(counts[3], 0);
  for (const count of counts.slice(0, 3)) assert.ok(count > 1_600 && count < 2_400, counts.join(" "));
});
