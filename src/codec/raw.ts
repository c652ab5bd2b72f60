/** Raw bytes: whatever arrived is the message, at most 64 KiB at a time, with no boundaries of its own. */
import type { ProtocolFault } from "../base/reasons.ts";
import { borrowedFrame, ownedFrame } from "./bytes.ts";
import type { Borrowed, Codec, Cursor } from "./codec.ts";
import { encodePayload, payloadBytesAtMost } from "./text.ts";

export interface RawOptions {
  /** `bytes` (default): each message is a Buffer of its own. `borrowed`: valid until the handler returns. */
  readonly as?: "bytes" | "borrowed";
}

class RawCodec<In> implements Codec<In, string | Uint8Array> {
  readonly name = "raw";
  readonly borrowed: boolean;
  message: In = undefined as In;
  readonly fault: ProtocolFault = "protocol-error";
  readonly #take: (bytes: Buffer, from: number, to: number) => In;

  constructor(take: (bytes: Buffer, from: number, to: number) => In, borrowed: boolean) {
    this.#take = take;
    this.borrowed = borrowed;
  }

  decode(bytes: Buffer, from: number, to: number, _cursor: Cursor, maxFrameBytes: number): number {
    const end = Math.min(to, from + maxFrameBytes);
    this.message = this.#take(bytes, from, end);
    return end - from;
  }

  sizeOf(message: string | Uint8Array): number {
    return payloadBytesAtMost("raw", message);
  }

  /** The limit bounds what is received; a raw message to send has no frame to be limited. */
  encodeInto(message: string | Uint8Array, target: Buffer, at: number): number {
    return encodePayload("raw", message, target, at, Number.POSITIVE_INFINITY);
  }
}

export function raw(options: RawOptions & { readonly as: "borrowed" }): Codec<Borrowed, string | Uint8Array>;
export function raw(options?: RawOptions & { readonly as?: "bytes" }): Codec<Buffer, string | Uint8Array>;
/** Bytes as they come. */
export function raw(options: RawOptions = {}): Codec<Buffer, string | Uint8Array> {
  return options.as === "borrowed"
    ? new RawCodec<Buffer>(borrowedFrame, true)
    : new RawCodec<Buffer>(ownedFrame, false);
}
