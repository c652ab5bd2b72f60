import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { raw } from "#src/codec/raw.js";
import { cutPlaces, encode, feed, splitAt } from "../support/splits.js";

for (const as of ["bytes", "borrowed"] as const) {
  const make = () => (as === "bytes" ? raw() : raw({ as: "borrowed" }));

  test(`${as}: every byte arrives once, in order, in pieces within the limit, and nothing waits`, () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 500 }),
        cutPlaces,
        fc.integer({ min: 1, max: 200 }),
        (bytes, cuts, limit) => {
          const fed = feed(make(), splitAt(bytes, cuts), limit);
          assert.ok(Buffer.concat(fed.messages).equals(bytes));
          for (const piece of fed.messages) assert.ok(piece.length >= 1 && piece.length <= limit);
          assert.equal(fed.mostHeld, 0);
          assert.equal(fed.fault, undefined);
        },
      ),
    );
  });
}

test("what is sent is what was given, text as UTF-8, and no limit applies", () => {
  assert.equal(encode(raw(), "é\n", 1).toString(), "é\n");
  assert.equal(encode(raw(), Buffer.alloc(5000, 1), 10).length, 5000);
  assert.equal(encode(raw(), "", 10).length, 0);
});
