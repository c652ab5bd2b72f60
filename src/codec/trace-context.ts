/**
 * W3C trace context (w3.org/TR/trace-context, `traceparent`) between its text and the 26 bytes in which binary
 * protocols carry it: version, trace id (16), parent id (8), flags. What is not valid counts as absent, as the
 * recommendation has it: a peer's wrong trace is no reason to refuse its request.
 */

export const TRACE_BYTES = 26;

const VERSION_END = 2;
const TRACE_ID_END = 34;
const PARENT_ID_END = 50;
const DIGITS = 2 * TRACE_BYTES;
const TEXT_LENGTH = DIGITS + 3;
const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;
const NO_TRACE_ID = "0".repeat(TRACE_ID_END - VERSION_END);
const NO_PARENT_ID = "0".repeat(PARENT_ID_END - TRACE_ID_END);

function isValid(version: string, traceId: string, parentId: string): boolean {
  return version !== "ff" && traceId !== NO_TRACE_ID && parentId !== NO_PARENT_ID;
}

/** The text for 52 hexadecimal digits; undefined when they are no valid trace context. */
export function traceparentOf(digits: string): string | undefined {
  const version = digits.slice(0, VERSION_END);
  const traceId = digits.slice(VERSION_END, TRACE_ID_END);
  const parentId = digits.slice(TRACE_ID_END, PARENT_ID_END);
  if (digits.length !== DIGITS || !isValid(version, traceId, parentId)) return undefined;
  return `${version}-${traceId}-${parentId}-${digits.slice(PARENT_ID_END)}`;
}

/** The 52 digits of a `traceparent`; undefined when it is not valid. Of later versions the part that is known. */
export function digitsOf(traceparent: string): string | undefined {
  const [whole, version = "", traceId = "", parentId = "", flags = ""] =
    TRACEPARENT.exec(traceparent.slice(0, TEXT_LENGTH)) ?? [];
  if (whole === undefined || !isValid(version, traceId, parentId)) return undefined;
  const more = traceparent.length > TEXT_LENGTH;
  if (more && (version === "00" || traceparent[TEXT_LENGTH] !== "-")) return undefined;
  return version + traceId + parentId + flags;
}
