/**
 * The header of an rpc frame, whose format stands in rpc.ts: where its fields are, what they may hold, and reading
 * and writing it. Pure; every field is checked here, so that whoever gets a frame need not.
 */
import { HeadraceError } from "../base/errors.ts";
import { TRACE_BYTES } from "./trace-context.ts";

/** The length itself; it counts what follows it. */
export const LENGTH_BYTES = 4;
/** With the length. */
export const HEADER_BYTES = 16;
/** What the length is at least: a header, and nothing else. */
export const LEAST_LENGTH: number = HEADER_BYTES - LENGTH_BYTES;
/** What it may be beyond the payload. */
export const MOST_OVERHEAD: number = LEAST_LENGTH + TRACE_BYTES;
const MAX_U32 = 0xffff_ffff;

const KIND_AT = 4;
const FLAGS_AT = 5;
const GRADE_AT = 6;
const RESERVED_AT = 7;
const ID_AT = 8;
const DEADLINE_AT = 12;

export const KIND = { request: 1, reply: 2, cancel: 3, goodbye: 4 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/** The only flag: a trace context stands before the payload. */
export const TRACED = 1;

/** The grade of the goodbye that is the server's last frame. */
export const LAST = 1;

/** By their numbers on the wire: 0 is what most requests are. */
export const RPC_PRIORITIES = ["normal", "high", "low"] as const;
export type RpcPriority = (typeof RPC_PRIORITIES)[number];

export const RPC_STATUSES = ["ok", "error", "busy", "deadline"] as const;
export type RpcStatus = (typeof RPC_STATUSES)[number];

export function readU32(bytes: Buffer, at: number): number {
  return (
    (bytes[at] as number) * 0x1000000 +
    (((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number))
  );
}

export function writeU32(value: number, target: Buffer, at: number): void {
  target[at] = value >>> 24;
  target[at + 1] = value >>> 16;
  target[at + 2] = value >>> 8;
  target[at + 3] = value;
}

export const kindAt = (bytes: Buffer, from: number): number => bytes[from + KIND_AT] as number;
export const gradeAt = (bytes: Buffer, from: number): number => bytes[from + GRADE_AT] as number;
export const idAt = (bytes: Buffer, from: number): number => readU32(bytes, from + ID_AT);
export const deadlineAt = (bytes: Buffer, from: number): number => readU32(bytes, from + DEADLINE_AT);
export const isTraced = (bytes: Buffer, from: number): boolean => bytes[from + FLAGS_AT] === TRACED;

/** Whether the header of a frame of `length` is one of the format, whichever side it is for. */
export function isHeader(bytes: Buffer, from: number, length: number): boolean {
  const flags = bytes[from + FLAGS_AT] as number;
  const grade = gradeAt(bytes, from);
  if (bytes[from + RESERVED_AT] !== 0) return false;
  const kind = kindAt(bytes, from);
  if (kind === KIND.request) {
    return grade < RPC_PRIORITIES.length && (flags === 0 || (flags === TRACED && length >= MOST_OVERHEAD));
  }
  if (flags !== 0 || deadlineAt(bytes, from) !== 0) return false;
  if (kind === KIND.reply) return grade < RPC_STATUSES.length;
  if (length !== LEAST_LENGTH) return false;
  if (kind === KIND.cancel) return grade === 0;
  return kind === KIND.goodbye && grade <= LAST && idAt(bytes, from) === 0;
}

/** Writes all but the length. */
export function writeHeader(
  target: Buffer,
  at: number,
  kind: Kind,
  flags: number,
  grade: number,
  id: number,
  deadlineMs: number,
): void {
  target[at + KIND_AT] = kind;
  target[at + FLAGS_AT] = flags;
  target[at + GRADE_AT] = grade;
  target[at + RESERVED_AT] = 0;
  writeU32(checkedId(id), target, at + ID_AT);
  writeU32(deadlineMs, target, at + DEADLINE_AT);
}

function checkedId(id: number): number {
  if (id >>> 0 === id) return id;
  throw cannotSend("an id", id, `a whole number, 0 to ${MAX_U32}`);
}

/** The number of a priority or a status. Throws `frame-invalid`. */
export function gradeOf(names: readonly string[], what: string, name: string): number {
  if (name === names[0]) return 0;
  const grade = names.indexOf(name);
  if (grade >= 0) return grade;
  throw cannotSend(what, name, names.join(", "));
}

/** Whole ms, rounded down: a request never gets more than is left. 0 and Infinity: none. Throws `frame-invalid`. */
export function wireDeadline(deadlineMs: number): number {
  if (deadlineMs === 0 || deadlineMs === Number.POSITIVE_INFINITY) return 0;
  if (deadlineMs > 0) return Math.min(MAX_U32, Math.max(1, Math.floor(deadlineMs)));
  throw cannotSend("a deadline", deadlineMs, "milliseconds, more than 0; 0: none");
}

export function cannotSend(what: string, given: unknown, allowed: string): HeadraceError {
  return new HeadraceError("frame-invalid", `rpc: ${what} of ${String(given)} cannot be sent; allowed: ${allowed}`, {
    given: String(given),
    allowed,
  });
}
