/**
 * Bytes of a connection that are received and not used yet: an unfinished frame, or whole ones that wait. Grows
 * with what arrives (never with what a peer announces): at most a frame, its overhead and one receive share.
 */
const LEAST_BYTES = 256;

export class Held {
  bytes: Buffer;
  from = 0;
  to: number;

  constructor(source: Buffer, from: number, to: number) {
    this.to = to - from;
    this.bytes = Buffer.allocUnsafeSlow(Math.max(LEAST_BYTES, this.to));
    source.copy(this.bytes, 0, from, to);
  }

  append(source: Buffer, from: number, to: number): void {
    const size = this.to - this.from + to - from;
    if (this.to + to - from > this.bytes.length) {
      const enough = size <= this.bytes.length / 2;
      const target = enough ? this.bytes : Buffer.allocUnsafeSlow(Math.max(size, 2 * this.bytes.length));
      this.bytes.copy(target, 0, this.from, this.to);
      this.bytes = target;
      this.to -= this.from;
      this.from = 0;
    }
    source.copy(this.bytes, this.to, from, to);
    this.to += to - from;
  }
}
