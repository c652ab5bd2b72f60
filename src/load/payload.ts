/**
 * The messages: what a connection sends, and whether what comes back is the same. A message is made of its connection's
 * number, its own sequence number and a pattern, so that a byte that is wrong, lost, repeated or another connection's
 * shows. All of it is printable ASCII: any codec carries it, and a mismatch can be shown.
 *
 *   [length: frame] [connection: up to 4 digits] [sequence: up to 4 digits] [pattern] ["\n": line]
 *   [header: rpc]
 *
 * Of an rpc request the reply differs in its kind; the id is the sequence number.
 *
 * The pattern is a piece of one table, at an offset that depends on the connection. Nothing is kept per message and
 * nothing is allocated for one. Short whole messages at addresses divisible by 4, which most are, are handled four
 * bytes at a time: 20 to 30 ns for 64 bytes instead of 70 to 130.
 */
import { endianness } from "node:os";
import { HEADER_BYTES, KIND, LEAST_LENGTH } from "../codec/rpc-header.ts";
import type { LoadCodec } from "./options.ts";

const PREFIX_BYTES: Readonly<Record<LoadCodec, number>> = { line: 0, frame: 4, raw: 0, rpc: HEADER_BYTES };
/** Where the id ends in a header. */
const ID_END = 12;
const NEWLINE = 10;
/** Digits are base 64, from "0" on: 4 of them number 16,777,216 connections or messages. */
const DIGITS = 4;
const ZERO = 0x30;
const ZEROS = 0x30303030;
/** Different offsets into the pattern; connections that share one still differ in their number. */
const SHIFTS = 64;
const SHIFT_MASK = SHIFTS - 1;
const WORD = 4;
const WORD_MASK = WORD - 1;
/** Up to here a loop is quicker than a call into V8's runtime. */
const LOOP_BYTES = 256;

/** Four digits, the lowest in the lowest byte. */
function digits(value: number): number {
  const spread = (value & 63) | ((value & 0xfc0) << 2) | ((value & 0x3f000) << 4) | ((value & 0xfc0000) << 6);
  return (spread + ZEROS) | 0;
}

/** The four bytes of `value` in the opposite order. */
function reversed(value: number): number {
  return (value >>> 24) | ((value >>> 8) & 0xff00) | ((value << 8) & 0xff0000) | (value << 24);
}

/** Pseudo-random digits, the same in every process (numerical recipes' generator). */
function makePattern(bytes: number): Buffer {
  const pattern = Buffer.allocUnsafeSlow(bytes);
  let state = 1;
  for (let at = 0; at < bytes; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    pattern[at] = ZERO + (state >>> 26);
  }
  return pattern;
}

/** The buffer as words; undefined when it does not lie on a word boundary. */
function wordsOf(bytes: Buffer): Int32Array | undefined {
  if (bytes.byteOffset % WORD !== 0) return undefined;
  return new Int32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / WORD));
}

export class Payload {
  /** Of a whole message on the wire. */
  readonly bytes: number;
  readonly #prefix: number;
  /** The length, its first byte on the wire in the lowest byte. */
  readonly #prefixWord: number;
  readonly #rpc: boolean;
  readonly #connectionDigits: number;
  readonly #sequenceDigits: number;
  readonly #head: number;
  readonly #tail: number;
  readonly #newline: boolean;
  readonly #pattern: Buffer;
  readonly #patternWords: Int32Array;
  readonly #pieces: readonly Buffer[];
  readonly #wordy: boolean;
  #input: Buffer | undefined;
  #inputWords: Int32Array | undefined;
  #output: Buffer | undefined;
  #outputWords: Int32Array | undefined;

  /** `size` as LoadOptions.sizeBytes. */
  constructor(codec: LoadCodec, size: number) {
    const body = codec === "line" ? size - 1 : size;
    this.#rpc = codec === "rpc";
    this.#prefix = PREFIX_BYTES[codec];
    this.#prefixWord = reversed(this.#rpc ? size + LEAST_LENGTH : size);
    this.#newline = codec === "line";
    this.#connectionDigits = Math.min(DIGITS, body >> 1);
    this.#sequenceDigits = Math.min(DIGITS, body - this.#connectionDigits);
    this.#head = this.#prefix + this.#connectionDigits + this.#sequenceDigits;
    this.#tail = this.#prefix + body - this.#head;
    this.bytes = this.#prefix + size;
    this.#pattern = makePattern(Math.ceil(this.#tail / WORD) * WORD + SHIFTS * WORD);
    this.#patternWords = wordsOf(this.#pattern) as Int32Array;
    this.#pieces = Array.from({ length: SHIFTS }, (_, shift) =>
      this.#pattern.subarray(shift * WORD, shift * WORD + this.#tail),
    );
    const whole = this.#connectionDigits === DIGITS && this.#sequenceDigits === DIGITS;
    this.#wordy = whole && this.#tail <= LOOP_BYTES && endianness() === "LE";
  }

  /** Writes message `sequence` of `connection` at `target[at]`. What comes back is the same, but for an rpc kind. */
  write(target: Buffer, at: number, connection: number, sequence: number): void {
    const first = digits(connection);
    const second = digits(sequence + connection);
    const pattern = (connection & SHIFT_MASK) * WORD;
    if (target !== this.#output) {
      this.#output = target;
      this.#outputWords = wordsOf(target);
    }
    const words = this.#outputWords;
    const bytes = this.#pattern;
    const end = pattern + this.#tail;
    if (this.#wordy && words && (at & WORD_MASK) === 0) {
      let to = at >> 2;
      if (this.#prefix > 0) words[to++] = this.#prefixWord;
      if (this.#rpc) {
        words[to++] = KIND.request;
        words[to++] = reversed(sequence);
        words[to++] = 0;
      }
      words[to++] = first;
      words[to++] = second;
      const patternWords = this.#patternWords;
      let from = pattern >> 2;
      while (from < end >> 2) words[to++] = patternWords[from++] as number;
      at = to * WORD;
      for (let i = from * WORD; i < end; i++) target[at++] = bytes[i] as number;
    } else {
      for (let i = 0; i < this.#prefix; i++) target[at++] = this.#prefixByte(i, KIND.request, sequence);
      for (let i = 0; i < this.#connectionDigits; i++) target[at++] = first >>> (8 * i);
      for (let i = 0; i < this.#sequenceDigits; i++) target[at++] = second >>> (8 * i);
      if (this.#tail > LOOP_BYTES) {
        target.set(this.#pieces[connection & SHIFT_MASK] as Buffer, at);
        at += this.#tail;
      } else {
        for (let i = pattern; i < end; i++) target[at++] = bytes[i] as number;
      }
    }
    if (this.#newline) target[at] = NEWLINE;
  }

  /**
   * Are `input[from, to)` the bytes of that message from `position` on? They must not go beyond its end. Returns -1, or
   * where the first wrong byte stands in `input`.
   */
  check(input: Buffer, from: number, to: number, position: number, connection: number, sequence: number): number {
    if (this.#tail <= LOOP_BYTES && to - from === this.bytes && this.#same(input, from, connection, sequence))
      return -1;
    let at = from;
    const patternAt = from + this.#head - position;
    const patternEnd = Math.min(to, patternAt + this.#tail);
    for (const end = Math.min(to, patternAt); at < end; at++) {
      if (input[at] !== this.byteAt(position + at - from, connection, sequence)) return at;
    }
    if (at < patternEnd) {
      const start = (connection & SHIFT_MASK) * WORD + at - patternAt;
      const alike =
        patternEnd - at > LOOP_BYTES &&
        input.compare(this.#pattern, start, start + patternEnd - at, at, patternEnd) === 0;
      if (alike) at = patternEnd;
      for (let i = start; at < patternEnd; i++, at++) if (input[at] !== this.#pattern[i]) return at;
    }
    return at < to && input[at] !== NEWLINE ? at : -1;
  }

  /** The byte at `position` of that message. */
  byteAt(position: number, connection: number, sequence: number): number {
    if (position >= this.#head + this.#tail) return NEWLINE;
    if (position >= this.#head)
      return this.#pattern[(connection & SHIFT_MASK) * WORD + position - this.#head] as number;
    if (position < this.#prefix) return this.#prefixByte(position, KIND.reply, sequence);
    const digit = position - this.#prefix;
    if (digit < this.#connectionDigits) return (digits(connection) >>> (8 * digit)) & 255;
    return (digits(sequence + connection) >>> (8 * (digit - this.#connectionDigits))) & 255;
  }

  #prefixByte(position: number, kind: number, sequence: number): number {
    if (position < WORD) return (this.#prefixWord >>> (8 * position)) & 255;
    if (position === WORD) return kind;
    return position >= ID_END - WORD && position < ID_END ? (sequence >>> (8 * (ID_END - 1 - position))) & 255 : 0;
  }

  /** Is the whole message at `from`? Where it differs is not asked. */
  #same(input: Buffer, from: number, connection: number, sequence: number): boolean {
    const first = digits(connection);
    const second = digits(sequence + connection);
    const pattern = (connection & SHIFT_MASK) * WORD;
    if (input !== this.#input) {
      this.#input = input;
      this.#inputWords = wordsOf(input);
    }
    const words = this.#inputWords;
    const bytes = this.#pattern;
    const end = pattern + this.#tail;
    let at = from;
    let i = pattern;
    if (this.#wordy && words && (from & WORD_MASK) === 0) {
      let to = from >> 2;
      if (this.#prefix > 0 && words[to++] !== this.#prefixWord) return false;
      if (this.#rpc && (words[to++] !== KIND.reply || words[to++] !== reversed(sequence) || words[to++] !== 0))
        return false;
      if (words[to++] !== first || words[to++] !== second) return false;
      const patternWords = this.#patternWords;
      let word = pattern >> 2;
      while (word < end >> 2) if (words[to++] !== patternWords[word++]) return false;
      at = to * WORD;
      i = word * WORD;
    } else {
      for (let k = 0; k < this.#prefix; k++) {
        if (input[at++] !== this.#prefixByte(k, KIND.reply, sequence)) return false;
      }
      for (let k = 0; k < this.#connectionDigits; k++) if (input[at++] !== ((first >>> (8 * k)) & 255)) return false;
      for (let k = 0; k < this.#sequenceDigits; k++) if (input[at++] !== ((second >>> (8 * k)) & 255)) return false;
    }
    for (; i < end; i++) if (input[at++] !== bytes[i]) return false;
    return !this.#newline || input[at] === NEWLINE;
  }
}
