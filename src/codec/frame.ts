/**
 * Frames: a 4-byte big-endian length, then so many bytes. The length counts the payload alone. A length of 0
 * and one over the limit are protocol errors, known as soon as the four bytes are there; memory for a frame
 * grows with the bytes that arrive, not with the length that was announced.
 */
import { HeadraceError } from "../base/errors.ts";
import type { ProtocolFault } from "../base/reasons.ts";
import { borrowedFrame, ownedFrame } from "./bytes.ts";
import { type Borrowed, type Codec, type Cursor, INVALID, NEED_MORE } from "./codec.ts";
import { encodePayload, payloadBytesAtMost } from "./text.ts";

export interface FrameOptions {
  /** `bytes` (default): each message is a Buffer of its own. `borrowed`: valid until the handler returns. */
  readonly as?: "bytes" | "borrowed";
}

const PREFIX_BYTES = 4;

type Take<In> = (bytes: Buffer, from: number, to: number) => In;

class FrameCodec<In> implements Codec<In, string | Uint8Array> {
  readonly name = "frame";
  readonly borrowed: boolean;
  message: In = undefined as In;
  fault: ProtocolFault = "protocol-error";
  readonly #take: Take<In>;

  constructor(take: Take<In>, borrowed: boolean) {
    this.#take = take;
    this.borrowed = borrowed;
  }

  decode(bytes: Buffer, from: number, to: number, _cursor: Cursor, maxFrameBytes: number): number {
    if (to - from < PREFIX_BYTES) return NEED_MORE;
    const length =
      (bytes[from] as number) * 0x1000000 +
      (((bytes[from + 1] as number) << 16) | ((bytes[from + 2] as number) << 8) | (bytes[from + 3] as number));
    if (length === 0 || length > maxFrameBytes) {
      this.fault = length === 0 ? "frame-empty" : "frame-too-large";
      return INVALID;
    }
    const end = from + PREFIX_BYTES + length;
    if (end > to) return NEED_MORE;
    this.message = this.#take(bytes, from + PREFIX_BYTES, end);
    return PREFIX_BYTES + length;
  }

  sizeOf(message: string | Uint8Array): number {
    return PREFIX_BYTES + payloadBytesAtMost("frame", message);
  }

  encodeInto(message: string | Uint8Array, target: Buffer, at: number, maxFrameBytes: number): number {
    const size = encodePayload("frame", message, target, at + PREFIX_BYTES, maxFrameBytes);
    if (size === 0) {
      throw new HeadraceError("frame-invalid", "frame: an empty message cannot be sent", { allowed: "1 byte or more" });
    }
    target[at] = size >>> 24;
    target[at + 1] = size >>> 16;
    target[at + 2] = size >>> 8;
    target[at + 3] = size;
    return PREFIX_BYTES + size;
  }
}

export function frame(options: FrameOptions & { readonly as: "borrowed" }): Codec<Borrowed, string | Uint8Array>;
export function frame(options?: FrameOptions & { readonly as?: "bytes" }): Codec<Buffer, string | Uint8Array>;
/** Messages behind a 4-byte big-endian length. */
export function frame(options: FrameOptions = {}): Codec<Buffer, string | Uint8Array> {
  return options.as === "borrowed"
    ? new FrameCodec<Buffer>(borrowedFrame, true)
    : new FrameCodec<Buffer>(ownedFrame, false);
}
