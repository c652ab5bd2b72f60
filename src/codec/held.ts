/**
 * Bytes of a connection that are received and not used yet: an unfinished frame, or whole ones that wait. Grows
 * with what arrives (never with what a peer announces): at most a frame, its overhead and one receive share. Shrinks
 * when little of it is left, and is counted in its worker's budget until `drop`.
 */
const LEAST_BYTES = 256;
/** A buffer that is larger gives half of itself back when a quarter of it is enough. */
const SHRINK_BYTES: number = 64 * 1024;

/** Where the sizes are counted. */
interface Counter {
  add(bytes: number): void;
}

export class Held {
  bytes: Buffer;
  from = 0;
  to: number;
  readonly #counter: Counter;

  constructor(counter: Counter, source: Buffer, from: number, to: number) {
    this.#counter = counter;
    this.to = to - from;
    this.bytes = Buffer.allocUnsafeSlow(Math.max(LEAST_BYTES, this.to));
    counter.add(this.bytes.length);
    source.copy(this.bytes, 0, from, to);
  }

  append(source: Buffer, from: number, to: number): void {
    const size = this.to - this.from + to - from;
    if (this.to + to - from > this.bytes.length) {
      const enough = size <= this.bytes.length / 2;
      this.#move(enough ? this.bytes.length : Math.max(size, 2 * this.bytes.length));
    }
    source.copy(this.bytes, this.to, from, to);
    this.to += to - from;
  }

  /** What stands before `from` is used. */
  use(from: number): void {
    this.from = from;
    if (this.bytes.length > SHRINK_BYTES && this.to - from <= this.bytes.length / 4) this.#move(this.bytes.length / 2);
  }

  /** It is not held any more. */
  drop(): void {
    this.#counter.add(-this.bytes.length);
  }

  /** To the front of a buffer of `size` bytes, which may be the same. */
  #move(size: number): void {
    const whole = Math.ceil(size);
    const target = whole === this.bytes.length ? this.bytes : Buffer.allocUnsafeSlow(whole);
    this.#counter.add(target.length - this.bytes.length);
    this.bytes.copy(target, 0, this.from, this.to);
    this.bytes = target;
    this.to -= this.from;
    this.from = 0;
  }
}
