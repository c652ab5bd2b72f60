import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32c } from "#src/codec/crc32c.js";

/** RFC 3720, appendix B.4, and the check value of the polynomial. */
for (const [what, bytes, sum] of [
  ["digits", Buffer.from("123456789"), 0xe306_9283],
  ["32 zeros", Buffer.alloc(32), 0x8a91_36aa],
  ["32 ones", Buffer.alloc(32, 0xff), 0x62a8_ab43],
  ["ascending", Buffer.from(Array.from({ length: 32 }, (_, index) => index)), 0x46dd_794e],
  ["nothing", Buffer.alloc(0), 0],
] as const) {
  test(`CRC-32C: ${what}`, () => assert.equal(crc32c(bytes, 0, bytes.length), sum));
}

test("four bytes may be taken for zeros, and only a part is summed", () => {
  const bytes = Buffer.from("..123456789..");
  const zeroed = Buffer.from("123\0\0\0\u00008\u0039");
  assert.equal(crc32c(bytes, 2, 11), 0xe306_9283);
  assert.equal(crc32c(bytes, 2, 11, 5), crc32c(zeroed, 0, zeroed.length));
});
