import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { largestFirst } from "#src/connection/largest.js";

test("all that hold something come, the largest first, and none twice", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20), { maxLength: 100 }), (sizes) => {
      const holders = sizes.map((heldBytes) => ({ heldBytes }));
      const order = [...largestFirst(holders)];
      assert.deepEqual(
        order.map(({ bytes }) => bytes),
        sizes.filter((size) => size > 0).toSorted((a, b) => b - a),
      );
      assert.equal(new Set(order.map(({ holder }) => holder)).size, order.length);
    }),
  );
});

test("tens of thousands that hold about as much are asked once each", () => {
  let asked = 0;
  const holders = Array.from({ length: 30_000 }, (_, at) => ({
    get heldBytes(): number {
      asked += 1;
      return 60_000 + ((at * 7_919) % 5_000);
    },
  }));
  for (const { bytes } of largestFirst(holders)) {
    assert.equal(bytes, 64_999);
    break;
  }
  assert.equal(asked, 30_000);
});
