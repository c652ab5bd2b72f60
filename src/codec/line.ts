/**
 * Lines: the bytes up to "\n", which is not part of the message. "\r" is a byte like any other: it stays in the
 * message (so that an echo is byte for byte what came) unless `carriageReturn: "strip"` takes one off the end
 * of each line received. The limit counts the bytes before "\n". A reply gets its "\n" and must not hold one.
 */
import { HeadraceError } from "../base/errors.ts";
import type { ProtocolFault } from "../base/reasons.ts";
import { borrowedFrame, indexOfByte, ownedFrame } from "./bytes.ts";
import { type Borrowed, type Codec, type Cursor, INVALID, NEED_MORE, skip } from "./codec.ts";
import { decodeText, encodePayload, payloadBytesAtMost } from "./text.ts";

export interface LineOptions {
  /**
   * What a message is. `text` (default): a string; invalid UTF-8 is a protocol error. `bytes`: a Buffer of its
   * own. `borrowed`: a Buffer that is valid until the handler returns.
   */
  readonly as?: "text" | "bytes" | "borrowed";
  /** A line over the limit closes the connection (`close`, the default), or is dropped up to its "\n". */
  readonly onOversize?: "close" | "discard";
  /** `keep` (default) or `strip` one "\r" before "\n". */
  readonly carriageReturn?: "keep" | "strip";
}

const NEWLINE = 10;
const RETURN = 13;
/** Cursor.mode while the rest of an oversized line is dropped. */
const DISCARDING = 1;

/** Makes a message of `bytes[from, to)`; undefined when they are not valid. */
type Take<In> = (bytes: Buffer, from: number, to: number) => In | undefined;

class LineCodec<In> implements Codec<In, string | Uint8Array> {
  readonly name = "line";
  readonly borrowed: boolean;
  message: In = undefined as In;
  fault: ProtocolFault = "protocol-error";
  readonly #take: Take<In>;
  readonly #discard: boolean;
  readonly #strip: boolean;

  constructor(take: Take<In>, options: LineOptions) {
    this.#take = take;
    this.borrowed = options.as === "borrowed";
    this.#discard = options.onOversize === "discard";
    this.#strip = options.carriageReturn === "strip";
  }

  decode(bytes: Buffer, from: number, to: number, cursor: Cursor, maxFrameBytes: number): number {
    if (cursor.mode === DISCARDING) return this.#discardOn(bytes, from, from, to, cursor);
    const end = Math.min(to, from + maxFrameBytes + 1);
    const at = indexOfByte(bytes, NEWLINE, from + cursor.seen, end);
    if (at < 0) {
      if (end - from > maxFrameBytes) return this.#oversize(bytes, from, to, cursor, maxFrameBytes);
      cursor.seen = end - from;
      return NEED_MORE;
    }
    cursor.seen = 0;
    const last = this.#strip && at > from && bytes[at - 1] === RETURN ? at - 1 : at;
    const message = this.#take(bytes, from, last);
    if (message === undefined) {
      this.fault = "protocol-error";
      return INVALID;
    }
    this.message = message;
    return at + 1 - from;
  }

  sizeOf(message: string | Uint8Array): number {
    return payloadBytesAtMost("line", message) + 1;
  }

  encodeInto(message: string | Uint8Array, target: Buffer, at: number, maxFrameBytes: number): number {
    const size = encodePayload("line", message, target, at, maxFrameBytes);
    if (indexOfByte(target, NEWLINE, at, at + size) >= 0) throw holdsNewline();
    target[at + size] = NEWLINE;
    return size + 1;
  }

  #oversize(bytes: Buffer, from: number, to: number, cursor: Cursor, maxFrameBytes: number): number {
    if (!this.#discard) {
      this.fault = "frame-too-large";
      return INVALID;
    }
    cursor.mode = DISCARDING;
    return this.#discardOn(bytes, from, from + maxFrameBytes, to, cursor);
  }

  /** Drops up to the end of the line, which is looked for from `at`. */
  #discardOn(bytes: Buffer, from: number, at: number, to: number, cursor: Cursor): number {
    const end = indexOfByte(bytes, NEWLINE, at, to);
    if (end < 0) {
      cursor.seen = 1;
      return skip(to - from);
    }
    cursor.seen = 0;
    cursor.mode = 0;
    return skip(end + 1 - from);
  }
}

function holdsNewline(): HeadraceError {
  return new HeadraceError("frame-invalid", 'line: a message that holds "\\n" cannot be sent: it would arrive as two', {
    allowed: 'a message without "\\n"',
  });
}

export function line(options: LineOptions & { readonly as: "borrowed" }): Codec<Borrowed, string | Uint8Array>;
export function line(options: LineOptions & { readonly as: "bytes" }): Codec<Buffer, string | Uint8Array>;
export function line(options?: LineOptions & { readonly as?: "text" }): Codec<string, string | Uint8Array>;
/** Newline-separated messages. */
export function line(options: LineOptions = {}): Codec<string | Buffer, string | Uint8Array> {
  if (options.as === "borrowed") return new LineCodec<Buffer>(borrowedFrame, options);
  if (options.as === "bytes") return new LineCodec<Buffer>(ownedFrame, options);
  return new LineCodec<string>(decodeText, options);
}
