import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Packer, prepare, Unpacker } from "#src/tasks/parcel.js";

const plain = fc.oneof(
  fc.integer(),
  fc.string(),
  fc.boolean(),
  fc.constantFrom(null, undefined),
  fc.bigInt(),
  fc.uint8Array({ maxLength: 3_000 }).map((bytes) => Buffer.from(bytes)),
  fc.array(fc.dictionary(fc.string(), fc.integer()), { maxLength: 3 }),
);

test("any values come out as they were packed, in their order, through a structured clone", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(), plain), { maxLength: 40 }), (items) => {
      const packer = new Packer();
      for (const [number, value] of items) {
        packer.number(number);
        packer.value(prepare(value, { keep: false }));
      }
      const from = new Unpacker(structuredClone(packer.seal()));
      const out = items.map(() => [from.number(), from.value()]);
      // A dictionary may have been made without a prototype.
      assert.deepEqual(
        out,
        items.map(([number, value]) => [number, structuredCopy(value)]),
      );
    }),
  );
});

function structuredCopy(value: unknown): unknown {
  return Buffer.isBuffer(value) ? value : structuredClone(value);
}

test("a small view of a large memory does not take that along, nor does a large one", () => {
  const memory = Buffer.alloc(1 << 20, "m");
  for (const size of [100, 100_000]) {
    const packer = new Packer();
    packer.value(prepare(memory.subarray(10, 10 + size), { keep: true }));
    const { values, bytes } = packer.seal();
    const travels =
      bytes.buffer.byteLength + values.reduce<number>((sum, value) => sum + (value as Buffer).buffer.byteLength, 0);
    assert.equal(travels, size);
  }
});
