import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Held } from "#src/connection/held.js";

test("appending and using up at random keeps the bytes, in memory of at most twice what is held", () => {
  const step = fc.record({ add: fc.uint8Array({ maxLength: 2_000 }), use: fc.double({ min: 0, max: 1, noNaN: true }) });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.array(step, { maxLength: 30 }), (first, steps) => {
      const source = Buffer.concat([Buffer.from("##"), first, Buffer.from("##")]);
      const held = new Held(source, 2, 2 + first.length);
      let expected = Buffer.from(first);
      let most = expected.length;
      for (const { add, use } of steps) {
        const bytes = Buffer.concat([Buffer.from("#"), add, Buffer.from("#")]);
        held.append(bytes, 1, 1 + add.length);
        bytes.fill(0);
        expected = Buffer.concat([expected, add]);
        most = Math.max(most, expected.length);
        assert.ok(held.bytes.subarray(held.from, held.to).equals(expected));
        const used = Math.floor(use * expected.length);
        held.from += used;
        expected = expected.subarray(used);
        assert.ok(held.bytes.length <= Math.max(256, 4 * most), `${held.bytes.length} for ${most}`);
      }
    }),
    { numRuns: 400 },
  );
});

test("a long frame in small pieces is copied a few times, not once per piece", () => {
  const held = new Held(Buffer.alloc(1), 0, 1);
  const piece = Buffer.alloc(100, 1);
  let grown = 0;
  let memory = held.bytes;
  for (let i = 0; i < 10_000; i++) {
    held.append(piece, 0, piece.length);
    if (held.bytes !== memory) grown += 1;
    memory = held.bytes;
  }
  assert.ok(grown <= 20, `${grown} times`);
});
