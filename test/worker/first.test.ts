/** The first of many, in order, whatever comes in which order. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { First } from "#src/worker/first.js";

test("it keeps the first so many, in order", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -50, max: 50 })),
      fc.nat(40),
      fc.constantFrom("asc", "desc"),
      (keys, most, order) => {
        const first = new First(most, order as "asc" | "desc");
        for (const [item, key] of keys.entries()) first.offer(key, item);
        const taken = first.take();
        const sorted = keys.toSorted((a, b) => (order === "asc" ? a - b : b - a)).slice(0, most);
        assert.deepEqual(taken.keys, sorted);
        assert.equal(new Set(taken.items).size, taken.items.length);
        assert.ok(taken.items.every((item, at) => keys[item] === taken.keys[at]));
      },
    ),
  );
});
