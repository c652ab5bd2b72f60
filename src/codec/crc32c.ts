/** CRC-32C (Castagnoli; RFC 4960, appendix B), as PROXY protocol headers may carry one. Pure. */

const POLYNOMIAL = 0x82f6_3b78;

const TABLE: Int32Array = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? POLYNOMIAL : 0);
  return value;
});

/** Of `bytes[from, to)`, with the four bytes at `zeroAt` taken for zeros: where the checksum itself stands. */
export function crc32c(bytes: Uint8Array, from: number, to: number, zeroAt: number = to): number {
  let sum = -1;
  for (let at = from; at < to; at++) {
    const byte = at >= zeroAt && at < zeroAt + 4 ? 0 : (bytes[at] as number);
    sum = (TABLE[(sum ^ byte) & 0xff] as number) ^ (sum >>> 8);
  }
  return ~sum >>> 0;
}
