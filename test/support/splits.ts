/**
 * Feeds a codec as src/connection does: what a call leaves unused stands in front of the next bytes. Counts the
 * bytes that wait and those that the codec reads, so that tests can bound both.
 */
import fc from "fast-check";
import type { ProtocolFault } from "#src/base/reasons.js";
import { type Codec, type Cursor, INVALID, NEED_MORE } from "#src/codec/codec.js";

export interface Fed<In> {
  readonly messages: In[];
  readonly fault: ProtocolFault | undefined;
  /** Bytes that wait for more. */
  readonly left: number;
  /** Most bytes that ever waited. */
  readonly mostHeld: number;
  /** Bytes the codec had been given when it found the fault. */
  readonly givenAtFault: number;
}

/** Keeps a message after the next decode: borrowed ones are copied. */
function keep<In>(message: In): In {
  return Buffer.isBuffer(message) ? (Buffer.from(message) as In) : message;
}

export class Feeder<In, Out> {
  readonly messages: In[] = [];
  fault: ProtocolFault | undefined;
  mostHeld = 0;
  givenAtFault = 0;
  readonly cursor: Cursor = { seen: 0, mode: 0 };
  readonly #codec: Codec<In, Out>;
  readonly #maxFrameBytes: number;
  #held: Buffer = Buffer.alloc(0);
  #given = 0;

  constructor(codec: Codec<In, Out>, maxFrameBytes: number) {
    this.#codec = codec;
    this.#maxFrameBytes = maxFrameBytes;
  }

  get left(): number {
    return this.#held.length;
  }

  /** `offset` bytes stand in front of the chunk, as in the engine's arena: the codec must not look at them. */
  push(chunk: Uint8Array, offset = 3): void {
    if (this.fault) return;
    this.#given += chunk.length;
    const front = Buffer.alloc(offset, "\n");
    const behind = Buffer.alloc(5, "\n");
    const bytes = Buffer.concat([front, this.#held, chunk, behind]);
    const to = bytes.length - behind.length;
    let from = offset;
    while (from < to) {
      const used = this.#codec.decode(bytes, from, to, this.cursor, this.#maxFrameBytes);
      if (!Number.isInteger(used) || used > to - from || -1 - used > to - from) throw new RangeError(`used ${used}`);
      if (used > 0) {
        this.messages.push(keep(this.#codec.message));
        from += used;
      } else if (used === NEED_MORE) {
        break;
      } else if (used === INVALID) {
        this.fault = this.#codec.fault;
        this.givenAtFault = this.#given;
        from = to;
      } else {
        from += -1 - used;
      }
    }
    this.#held = Buffer.from(bytes.subarray(from, to));
    this.mostHeld = Math.max(this.mostHeld, this.#held.length);
  }
}

export function feed<In>(codec: Codec<In, unknown>, chunks: readonly Uint8Array[], maxFrameBytes: number): Fed<In> {
  const feeder = new Feeder(codec, maxFrameBytes);
  for (const chunk of chunks) feeder.push(chunk);
  return feeder;
}

/** What the service makes of all bytes at once is the same as of any split. */
export function splitAt(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [0, ...cuts.map((cut) => Math.floor(cut * bytes.length)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((to, index) => bytes.subarray(places[index], to));
}

export function byteByByte(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
}

/** Where to cut: fractions of the length. */
export const cutPlaces: fc.Arbitrary<number[]> = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), {
  maxLength: 12,
});

/** The encoding of one message, alone in a buffer that is exactly as large as the codec asked for. */
export function encode<Out>(codec: Codec<unknown, Out>, message: Out, maxFrameBytes: number): Buffer {
  const margin = 4;
  const size = codec.sizeOf(message);
  const target = Buffer.alloc(size + 2 * margin, 0xee);
  const written = codec.encodeInto(message, target, margin, maxFrameBytes);
  if (written > size) throw new RangeError(`wrote ${written} of ${size}`);
  const outside = Buffer.concat([target.subarray(0, margin), target.subarray(margin + size)]);
  if (outside.some((byte) => byte !== 0xee)) throw new RangeError("wrote outside of its bounds");
  return target.subarray(margin, margin + written);
}
