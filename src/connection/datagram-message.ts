/**
 * The bytes of a datagram as its handler sees them. Borrowed ones stand in one buffer of their own, beside the input
 * arena, with a view for each length that ever came: so nothing is made for a datagram, and when a handler keeps its
 * bytes (it has returned a promise) the buffer is left to it and the next datagrams get another.
 */
import { copyBytes, ownedFrame } from "../codec/bytes.ts";

/** Up to here a loop over words is quicker than making a view of the arena. */
const LOOP_BYTES = 2_048;
const WORD_BYTES = Int32Array.BYTES_PER_ELEMENT;
/** What an expired message is overwritten with in development. */
const POISON = 0xdb;

const wordCount = (bytes: number): number => (bytes + WORD_BYTES - 1) >> 2;

export class BorrowedMessage {
  readonly #input: Buffer;
  readonly #inputWords: Int32Array;
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  /** By length. */
  readonly #views: (Buffer | undefined)[];
  #current: Buffer | undefined;

  constructor(input: Buffer, inputWords: Int32Array, mostBytes: number) {
    const words = wordCount(mostBytes);
    this.#input = input;
    this.#inputWords = inputWords;
    this.#bytes = Buffer.allocUnsafeSlow(words * WORD_BYTES);
    this.#words = new Int32Array(this.#bytes.buffer, 0, words);
    this.#views = new Array(mostBytes + 1).fill(undefined);
  }

  /** `input[at, at + length)`, until the next call; `at` is a multiple of 4. */
  take(at: number, length: number): Buffer {
    if (length <= LOOP_BYTES) {
      const [to, from] = [this.#words, this.#inputWords];
      const first = at >> 2;
      for (let word = 0, words = wordCount(length); word < words; word++) to[word] = from[first + word] as number;
    } else {
      copyBytes(this.#input, at, at + length, this.#bytes, 0);
    }
    let view = this.#views[length];
    if (!view) {
      view = this.#bytes.subarray(0, length);
      this.#views[length] = view;
    }
    this.#current = view;
    return view;
  }

  /** Whether `message` is what `take` has given. */
  is(message: unknown): boolean {
    return message === this.#current;
  }

  /** Copies it to `words`, from word `at` on. */
  copyTo(words: Int32Array, at: number, length: number): void {
    const from = this.#words;
    for (let word = 0, count = wordCount(length); word < count; word++) words[at + word] = from[word] as number;
  }

  /** Whoever has kept it shall see that it is no longer his. */
  poison(): void {
    this.#current?.fill(POISON);
  }
}

/** A copy that belongs to the handler. */
export function ownMessage(input: Buffer, at: number, length: number): Buffer {
  return ownedFrame(input, at, at + length);
}
