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
        const all = keys.map((key, item) => ({ key, item }));
        all.sort((a, b) => (order === "asc" ? a.key - b.key : b.key - a.key) || a.item - b.item);
        const wanted = all.slice(0, most);
        assert.deepEqual(taken, { keys: wanted.map(({ key }) => key), items: wanted.map(({ item }) => item) });
      },
    ),
  );
});
