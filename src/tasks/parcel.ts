/**
 * Values on their way to a thread and back, many in one message. A message costs more the more objects it has, so small
 * byte arrays travel side by side in one; what is neither primitive nor bytes is serialized by itself, so that one value
 * that cannot travel (a function, a socket) fails alone.
 */
import { deserialize, serialize } from "node:v8";

const PLAIN = 0;
const BYTES = 1;
const CLONE = 2;

/** Larger ones are not copied once more; and who keeps a small one keeps its neighbours, which is bounded by this. */
const SMALL_BYTES = 1024;

export interface Parcel {
  /** What stands where: numbers of the sender's own, and for each value its kind and size. */
  readonly head: readonly number[];
  /** Primitives, and large byte arrays. */
  readonly values: readonly unknown[];
  readonly bytes: Uint8Array;
}

/** A value as `serialize` wrote it. */
class Serialized {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/**
 * What can be put into a parcel for `value`. Throws DataCloneError for what is not plain data. `keep`: bytes that the
 * caller will not change before they are sent.
 */
export function prepare(value: unknown, { keep }: { readonly keep: boolean }): unknown {
  if (value instanceof Uint8Array) {
    if (keep && (value.length <= SMALL_BYTES || value.length === value.buffer.byteLength)) return value;
    // A large view would travel with all of the memory that it is a view of.
    const copy = value.length <= SMALL_BYTES ? Buffer.allocUnsafe(value.length) : Buffer.allocUnsafeSlow(value.length);
    copy.set(value);
    return copy;
  }
  const type = typeof value;
  return value === null || (type !== "object" && type !== "function" && type !== "symbol")
    ? value
    : new Serialized(serialize(value));
}

/** Of a value by itself: its kind, its size. */
const ALONE_BYTES = 5;

/** Writes a value of `prepare` by itself at `at`; returns where it ends, or -1 when it does not fit. */
export function writeAlone(prepared: unknown, target: Buffer, at: number): number {
  const isBytes = prepared instanceof Uint8Array;
  const known = isBytes ? prepared : prepared instanceof Serialized ? prepared.bytes : undefined;
  const bytes = known ?? serialize(prepared);
  const end = at + ALONE_BYTES + bytes.length;
  if (end > target.length) return -1;
  target.writeUInt8(isBytes ? BYTES : CLONE, at);
  target.writeUInt32LE(bytes.length, at + 1);
  target.set(bytes, at + ALONE_BYTES);
  return end;
}

/** What `writeAlone` has written, a copy, and where it ends. */
export function readAlone(source: Buffer, at: number): { readonly value: unknown; readonly end: number } {
  const end = at + ALONE_BYTES + source.readUInt32LE(at + 1);
  const bytes = Buffer.from(source.subarray(at + ALONE_BYTES, end));
  return { value: source.readUInt8(at) === BYTES ? bytes : deserialize(bytes), end };
}

export class Packer {
  readonly #head: number[] = [];
  readonly #values: unknown[] = [];
  readonly #parts: Uint8Array[] = [];
  #size = 0;

  number(value: number): void {
    this.#head.push(value);
  }

  /** Of `prepare`. */
  value(prepared: unknown): void {
    if (prepared instanceof Serialized) this.#part(CLONE, prepared.bytes);
    else if (prepared instanceof Uint8Array && prepared.length <= SMALL_BYTES) this.#part(BYTES, prepared);
    else {
      this.#head.push(PLAIN);
      this.#values.push(prepared);
    }
  }

  seal(): Parcel {
    // Of its own memory: all of that is sent.
    const bytes = new Uint8Array(this.#size);
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return { head: this.#head, values: this.#values, bytes };
  }

  #part(kind: number, part: Uint8Array): void {
    this.#head.push(kind, part.length);
    this.#parts.push(part);
    this.#size += part.length;
  }
}

/** Reads a parcel in the order in which it was packed. Bytes come out as a Buffer. */
export class Unpacker {
  readonly #parcel: Parcel;
  #head = 0;
  #value = 0;
  #at = 0;

  constructor(parcel: Parcel) {
    this.#parcel = parcel;
  }

  number(): number {
    return this.#parcel.head[this.#head++] as number;
  }

  value(): unknown {
    const kind = this.number();
    if (kind === PLAIN) {
      const value = this.#parcel.values[this.#value++];
      return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.length) : value;
    }
    const { bytes } = this.#parcel;
    const part = Buffer.from(bytes.buffer, bytes.byteOffset + this.#at, this.number());
    this.#at += part.length;
    return kind === CLONE ? deserialize(part) : part;
  }
}
