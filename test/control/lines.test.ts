import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { LineCutter } from "#src/control/lines.js";

const MAX = 32;
const shortLine = fc.string({ unit: fc.constantFrom("a", "é", "0", " "), maxLength: MAX / 2 });

test("any split of the bytes gives the same lines", () => {
  fc.assert(
    fc.property(fc.array(shortLine), fc.array(fc.nat(8), { minLength: 1 }), (lines, sizes) => {
      const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
      const cutter = new LineCutter(MAX);
      const got: string[] = [];
      for (let at = 0, turn = 0; at < bytes.length; turn++) {
        const size = Math.max(1, sizes[turn % sizes.length] ?? 1);
        const cut = cutter.push(bytes.subarray(at, at + size));
        assert.equal(cut.overflow, false);
        got.push(...cut.lines);
        at += size;
      }
      assert.deepEqual(got, lines);
    }),
  );
});

test("a line of the greatest length is cut, one byte more is not", () => {
  const longest = "x".repeat(MAX);
  assert.deepEqual(new LineCutter(MAX).push(Buffer.from(`${longest}\n`)), { lines: [longest], overflow: false });
  assert.deepEqual(new LineCutter(MAX).push(Buffer.from(`${longest}x\n`)), { lines: [], overflow: true });
  assert.deepEqual(new LineCutter(MAX).push(Buffer.from(`a\n${longest}x`)), { lines: ["a"], overflow: true });
});
