import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeText, encodeText, textBytesAtMost } from "#src/codec/text.js";

/** Any UTF-16, lone surrogates included, of lengths around those at which the code changes its method. */
const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 300 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 50 }).map((units) => String.fromCharCode(...units)),
  fc
    .tuple(fc.constantFrom("a", "é", "€", "😀", "\ud800"), fc.integer({ min: 120, max: 1100 }))
    .map(([unit, n]) => unit.repeat(n)),
);

test("the bound holds and the bytes are those of Buffer.from, whatever the text", () => {
  fc.assert(
    fc.property(anyText, fc.nat({ max: 5 }), (text, at) => {
      const expected = Buffer.from(text);
      assert.ok(textBytesAtMost(text) >= expected.length);
      const target = Buffer.alloc(at + textBytesAtMost(text));
      assert.equal(encodeText(text, target, at), expected.length);
      assert.ok(target.subarray(at, at + expected.length).equals(expected));
    }),
    { numRuns: 500 },
  );
});

test("valid text comes back unchanged", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const wellFormed = Buffer.from(text).toString();
      const bytes = Buffer.from(wellFormed);
      assert.equal(decodeText(bytes, 0, bytes.length), wellFormed);
    }),
    { numRuns: 500 },
  );
});
