import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Held } from "#src/codec/held.js";

test("appending and using up at random keeps the bytes, in memory of at most twice what is held", () => {
  const step = fc.record({ add: fc.uint8Array({ maxLength: 2_000 }), use: fc.double({ min: 0, max: 1, noNaN: true }) });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.array(step, { maxLength: 30 }), (first, steps) => {
      let counted = 0;
      const counter = {
        add(bytes: number) {
          counted += bytes;
        },
      };
      const source = Buffer.concat([Buffer.from("##"), first, Buffer.from("##")]);
      const held = new Held(counter, source, 2, 2 + first.length);
      let expected = Buffer.from(first);
      assert.equal(counted, held.bytes.length);
      let most = expected.length;
      for (const { add, use } of steps) {
        const bytes = Buffer.concat([Buffer.from("#"), add, Buffer.from("#")]);
        held.append(bytes, 1, 1 + add.length);
        bytes.fill(0);
        expected = Buffer.concat([expected, add]);
        most = Math.max(most, expected.length);
        assert.ok(held.bytes.subarray(held.from, held.to).equals(expected));
        const used = Math.floor(use * expected.length);
        held.use(held.from + used);
        expected = expected.subarray(used);
        assert.ok(held.bytes.subarray(held.from, held.to).equals(expected));
        assert.equal(counted, held.bytes.length);
        assert.ok(held.bytes.length <= Math.max(256, 4 * most), `${held.bytes.length} for ${most}`);
      }
      held.drop();
      assert.equal(counted, 0);
    }),
    { numRuns: 400 },
  );
});

test("a long frame in small pieces is copied a few times, not once per piece", () => {
  const held = new Held({ add() {} }, Buffer.alloc(1), 0, 1);
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

test("what is left of much does not keep the memory of all", () => {
  const held = new Held({ add() {} }, Buffer.alloc(1 << 20), 0, 1 << 20);
  for (let used = 0; used < (1 << 20) - 10; used += 1_000) held.use(Math.min(held.from + 1_000, held.to - 10));
  assert.equal(held.to - held.from, 10);
  assert.ok(held.bytes.length <= 64 * 1024, `${held.bytes.length}`);
});
