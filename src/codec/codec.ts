/**
 * A codec cuts a stream of bytes into messages and turns messages into bytes. It is pure: no socket, no
 * timer, no memory per connection but the two numbers of a `Cursor`. One codec object serves every
 * connection of a listener; the message it found stands in its `message` field until the next call.
 */
import { HeadraceError } from "../base/errors.ts";
import type { ProtocolFault } from "../base/reasons.ts";

/** What a codec may remember of a connection between two calls; both start at 0. */
export interface Cursor {
  /** Bytes of an unfinished message that were looked at or skipped already. 0 between messages: the peer owes none. */
  seen: number;
  /** For the codec's own use (for example: discarding an oversized line). */
  mode: number;
}

/** The bytes hold no whole message yet. */
export const NEED_MORE = 0;
/** The peer broke the protocol: `fault` says how. */
export const INVALID = -1;

/** `bytes` (at least 1) are used up without making a message. Throws RangeError for fewer. */
export function skip(bytes: number): number {
  if (bytes < 1) throw new RangeError(`skip(${bytes}): a codec that uses no byte would be asked for ever`);
  return -1 - bytes;
}

/** A frame that is valid until the handler returns. To keep it, copy it: `Buffer.from(frame)`. */
export type Borrowed = Buffer & { readonly [borrowed]: true };
declare const borrowed: unique symbol;

export interface Codec<In, Out> {
  readonly name: string;
  /** Messages are valid only until the handler returns. */
  readonly borrowed: boolean;
  /** The message that the last `decode` found. */
  readonly message: In;
  /** What the last `decode` blames on the peer. */
  readonly fault: ProtocolFault;
  /**
   * Looks for one message at the start of `bytes[from, to)`, never beyond. Returns the bytes it takes (1 or
   * more; the message is in `message`), NEED_MORE, INVALID (see `fault`) or `skip(n)`. When it needs more it
   * is called again with the same bytes and more behind them. A message of over `maxFrameBytes` is INVALID
   * as soon as that is known, so that no more than that is ever held.
   */
  decode(bytes: Buffer, from: number, to: number, cursor: Cursor, maxFrameBytes: number): number;
  /** At most so many bytes will `encodeInto` write. */
  sizeOf(message: Out): number;
  /**
   * Writes the message at `target[at]` and returns the bytes written.
   * Throws `frame-too-large` past `maxFrameBytes`, `frame-invalid` for what the format cannot carry.
   */
  encodeInto(message: Out, target: Buffer, at: number, maxFrameBytes: number): number;
}

/** Throws `frame-too-large` when a message to be sent is over the limit. */
export function checkFrame(codec: string, bytes: number, maxFrameBytes: number): void {
  if (bytes <= maxFrameBytes) return;
  throw new HeadraceError("frame-too-large", `${codec}: a message of ${bytes} bytes cannot be sent`, {
    given: String(bytes),
    allowed: `at most ${maxFrameBytes} (limits.frame)`,
  });
}
