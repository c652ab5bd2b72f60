/** Text and bytes as payloads: strict UTF-8 in, UTF-8 out. */
import { HeadraceError } from "../base/errors.ts";
import { copyBytes } from "./bytes.ts";
import { checkFrame } from "./codec.ts";

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** What lenient decoding puts where bytes were not UTF-8. It may also have been sent as such. */
const REPLACEMENT = "\u{fffd}";
/** Up to here a string's size is taken as 3 bytes per UTF-16 unit instead of measured. */
const GUESS_UNITS = 1024;
/** Up to here a loop is cheaper than a call (see bytes.ts). */
const LOOP_UNITS = 16;

/** `bytes[from, to)` as text; undefined when it is not UTF-8. */
export function decodeText(bytes: Buffer, from: number, to: number): string | undefined {
  const text = bytes.toString("utf8", from, to);
  if (!text.includes(REPLACEMENT)) return text;
  try {
    return strictUtf8.decode(bytes.subarray(from, to));
  } catch {
    return undefined;
  }
}

/** An upper bound of the text's size in UTF-8. */
export function textBytesAtMost(text: string): number {
  return text.length <= GUESS_UNITS ? text.length * 3 : Buffer.byteLength(text);
}

/** Writes the text at `target[at]`; returns its bytes. */
export function encodeText(text: string, target: Buffer, at: number): number {
  if (text.length > LOOP_UNITS) return target.write(text, at);
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x7f) return target.write(text, at);
    target[at + i] = unit;
  }
  return text.length;
}

/** A handler in plain JavaScript may return anything. */
function wrongKind(codec: string, message: unknown): HeadraceError {
  const kind = message === null ? "null" : Array.isArray(message) ? "an array" : `of type ${typeof message}`;
  return new HeadraceError("frame-invalid", `${codec}: a message that is ${kind} cannot be sent`, {
    given: kind,
    allowed: "text or bytes (string, Buffer, Uint8Array)",
  });
}

/** Bytes or text of a message, at `target[at]`, within the limit; returns its bytes. */
export function encodePayload(
  codec: string,
  message: string | Uint8Array,
  target: Buffer,
  at: number,
  maxFrameBytes: number,
): number {
  const size = typeof message === "string" ? encodeText(message, target, at) : message.length;
  checkFrame(codec, size, maxFrameBytes);
  if (typeof message !== "string") copyBytes(message, 0, size, target, at);
  return size;
}

/** An upper bound of the message's size. Throws `frame-invalid` when it is neither text nor bytes. */
export function payloadBytesAtMost(codec: string, message: string | Uint8Array): number {
  if (typeof message === "string") return textBytesAtMost(message);
  if (message instanceof Uint8Array) return message.length;
  throw wrongKind(codec, message);
}
