/**
 * The control socket's language: one JSON object a line, `protocol` first in each. One request a connection.
 *
 *   status                          status
 *   stop                            stopping, and with `wait` at the end stopped
 *   reload, upgrade, scale, drain   started; with `wait` not that, but done at the end
 *   connections, kill, closed       connections, done, closed
 *   log-level, metrics              log-level, metrics
 *   profile                         profile, and behind that line so many bytes of it
 *
 * Whatever cannot be done gets one `error` in place of the answer. A field that is left out is false; one that
 * nobody knows is refused, so that an older server never does half of what a newer client asked for.
 */
import { LOG_LEVELS, type LogLevel, MAX_WORKERS } from "../base/settings.ts";
import {
  CLOSED_MAX,
  CLOSED_PAGE,
  type ClosedConnection,
  CONNECTION_SORTS,
  CONNECTIONS_OFFSET_MAX,
  CONNECTIONS_PAGE,
  CONNECTIONS_PAGE_MAX,
  type ConnectionPage,
  type ConnectionQuery,
  PROFILE_SECONDS,
  PROFILE_SECONDS_MAX,
  type ProfileRequest,
  SORT_ORDERS,
} from "./inspection.ts";
import type { ServerStatus } from "./status.ts";

export const CONTROL_PROTOCOL = 1;
export const MAX_REQUEST_BYTES = 4096;
export const MAX_REPLY_BYTES: number = 16 * 1024 * 1024;

/** Asks for something that takes its time. `wait`: the answer comes when it is over. */
export type ChangeRequest =
  | { readonly type: "reload"; readonly wait: boolean; readonly replace: boolean }
  | { readonly type: "upgrade"; readonly wait: boolean }
  | { readonly type: "scale"; readonly wait: boolean; readonly workers: number }
  | { readonly type: "drain"; readonly wait: boolean; readonly worker: number };

/** Asks what the admin server also answers. */
export type InspectionRequest =
  | (ConnectionQuery & { readonly type: "connections" })
  | { readonly type: "kill"; readonly id: string }
  | { readonly type: "closed"; readonly limit: number }
  | (ProfileRequest & { readonly type: "profile" })
  /** Without a level it only tells it. */
  | { readonly type: "log-level"; readonly level?: LogLevel }
  | { readonly type: "metrics" };

export type ControlRequest =
  | InspectionRequest
  | { readonly type: "status" }
  | { readonly type: "stop"; readonly wait: boolean; readonly fast: boolean }
  | ChangeRequest;

export interface ControlFault {
  readonly type: "error";
  readonly code: "protocol" | "malformed" | "unknown" | "too-long" | "busy" | "refused" | "timeout" | "failed";
  readonly message: string;
}

export type ControlReply =
  | { readonly type: "status"; readonly status: ServerStatus }
  | { readonly type: "stopping" }
  | { readonly type: "stopped"; readonly closed: number; readonly forced: number }
  | { readonly type: "started" }
  | { readonly type: "done"; readonly message: string }
  | { readonly type: "connections"; readonly page: ConnectionPage }
  | { readonly type: "closed"; readonly rows: readonly ClosedConnection[] }
  | { readonly type: "log-level"; readonly level: LogLevel }
  | { readonly type: "metrics"; readonly contentType: string; readonly body: string }
  /** So many bytes follow. */
  | { readonly type: "profile"; readonly name: string; readonly bytes: number }
  | ControlFault;

export function fault(code: ControlFault["code"], message: string): ControlFault {
  return { type: "error", code, message };
}

/** A request or a reply as it travels. */
export function formatLine(body: ControlRequest | ControlReply): string {
  return `${JSON.stringify({ protocol: CONTROL_PROTOCOL, ...body })}\n`;
}

type Parsed = { readonly object: Readonly<Record<string, unknown>> } | { readonly fault: ControlFault };

/** The object in a line of the right protocol, or what is wrong with it. */
function parseObject(line: string): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { fault: fault("malformed", "not a line of JSON") };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { fault: fault("malformed", "not a JSON object") };
  }
  const object = value as Record<string, unknown>;
  if (object.protocol === CONTROL_PROTOCOL) return { object };
  const given = object.protocol === undefined ? "no protocol" : `protocol ${JSON.stringify(object.protocol)}`;
  return { fault: fault("protocol", `this end speaks control protocol ${CONTROL_PROTOCOL}, the other gave ${given}`) };
}

interface Field {
  readonly allowed: string;
  readonly fits: (value: unknown) => boolean;
  /** Taken when it is left out; without one it must be given. */
  readonly absent?: unknown;
}

const FLAG: Field = { allowed: "true or false", fits: (value) => typeof value === "boolean", absent: false };

function count(from: number, to: number): Field {
  const fits = (value: unknown): boolean => Number.isInteger(value) && Number(value) >= from && Number(value) <= to;
  return { allowed: `a whole number from ${from} to ${to}`, fits };
}

/** One that may be left out; then it is `absent`, or not there. */
function optional({ allowed, fits }: Field, absent?: unknown): Field {
  return { allowed, fits: (value) => value === undefined || fits(value), absent };
}

function oneOf(words: readonly string[]): Field {
  return { allowed: `one of ${words.join(", ")}`, fits: (value) => words.includes(value as string) };
}

const MOST_TEXT = 200;
const TEXT: Field = {
  allowed: `a text of 1 to ${MOST_TEXT} characters`,
  fits: (value) => typeof value === "string" && value.length >= 1 && value.length <= MOST_TEXT,
};
const WORKER: Field = count(0, MAX_WORKERS - 1);
const TARGET: Field = {
  allowed: `"primary" or ${WORKER.allowed}`,
  fits: (value) => value === "primary" || WORKER.fits(value),
};

/** The fields of each request. */
const REQUESTS: ReadonlyMap<unknown, Readonly<Record<string, Field>>> = new Map([
  ["status", {}],
  ["stop", { wait: FLAG, fast: FLAG }],
  ["reload", { wait: FLAG, replace: FLAG }],
  ["upgrade", { wait: FLAG }],
  ["scale", { wait: FLAG, workers: count(1, MAX_WORKERS) }],
  ["drain", { wait: FLAG, worker: WORKER }],
  [
    "connections",
    {
      sort: optional(oneOf(CONNECTION_SORTS), "buffered"),
      order: optional(oneOf(SORT_ORDERS), "desc"),
      limit: optional(count(1, CONNECTIONS_PAGE_MAX), CONNECTIONS_PAGE),
      offset: optional(count(0, CONNECTIONS_OFFSET_MAX), 0),
      address: optional(TEXT),
      listener: optional(TEXT),
      worker: optional(WORKER),
    },
  ],
  ["kill", { id: TEXT }],
  ["closed", { limit: optional(count(1, CLOSED_MAX), CLOSED_PAGE) }],
  [
    "profile",
    {
      kind: oneOf(["cpu", "heap"]),
      target: optional(TARGET, 0),
      seconds: optional(count(0, PROFILE_SECONDS_MAX), PROFILE_SECONDS),
    },
  ],
  ["log-level", { level: optional(oneOf(LOG_LEVELS)) }],
  ["metrics", {}],
] satisfies [ControlRequest["type"], Record<string, Field>][]);

function quoted(names: Iterable<unknown>): string {
  return [...names].map((name) => JSON.stringify(name)).join(", ");
}

/** Reads one line of a client. */
export function parseRequest(line: string): ControlRequest | ControlFault {
  const parsed = parseObject(line);
  if ("fault" in parsed) return parsed.fault;
  const { protocol: _, type, ...given } = parsed.object;
  const fields = REQUESTS.get(type);
  if (!fields) return fault("unknown", `unknown request ${JSON.stringify(type)}; allowed: ${quoted(REQUESTS.keys())}`);
  const known = Object.keys(fields);
  const strange = Object.keys(given).filter((name) => !known.includes(name));
  if (strange.length > 0) {
    const allowed = known.length === 0 ? "none" : quoted(known);
    return fault("malformed", `unknown field ${quoted(strange)} in ${quoted([type])}; allowed: ${allowed}`);
  }
  const request: Record<string, unknown> = { type };
  for (const [name, { allowed, fits, absent }] of Object.entries(fields)) {
    const value = Object.hasOwn(given, name) ? given[name] : absent;
    if (!fits(value)) return fault("malformed", `"${name}" is ${allowed}`);
    if (value !== undefined) request[name] = value;
  }
  return request as unknown as ControlRequest;
}

/** Reads one line of the server, whose user was checked: its shape is trusted. */
export function parseReply(line: string): ControlReply {
  const parsed = parseObject(line);
  return "fault" in parsed ? parsed.fault : (parsed.object as unknown as ControlReply);
}
