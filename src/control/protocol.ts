/**
 * The control socket's language: one JSON object a line, `protocol` first in each. One request a connection, one
 * reply; but a `stop` that waits gets `stopping` at once and `stopped` at the end. All else gets one `error`.
 */
import type { ServerStatus } from "./status.ts";

export const CONTROL_PROTOCOL = 1;
export const MAX_REQUEST_BYTES = 4096;
export const MAX_REPLY_BYTES: number = 16 * 1024 * 1024;

export type ControlRequest =
  | { readonly type: "status" }
  | { readonly type: "stop"; readonly wait: boolean; readonly fast: boolean };

export interface ControlFault {
  readonly type: "error";
  readonly code: "protocol" | "malformed" | "unknown" | "too-long" | "busy" | "refused" | "timeout" | "failed";
  readonly message: string;
}

export type ControlReply =
  | { readonly type: "status"; readonly status: ServerStatus }
  | { readonly type: "stopping" }
  | { readonly type: "stopped"; readonly closed: number; readonly forced: number }
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

/** Reads one line of a client. */
export function parseRequest(line: string): ControlRequest | ControlFault {
  const parsed = parseObject(line);
  if ("fault" in parsed) return parsed.fault;
  const { type, wait = false, fast = false } = parsed.object;
  if (type === "status") return { type };
  if (type !== "stop") return fault("unknown", `unknown request ${JSON.stringify(type)}; allowed: "status", "stop"`);
  if (typeof wait !== "boolean" || typeof fast !== "boolean") {
    return fault("malformed", '"wait" and "fast" are true or false');
  }
  return { type, wait, fast };
}

/** Reads one line of the server, whose user was checked: its shape is trusted. */
export function parseReply(line: string): ControlReply {
  const parsed = parseObject(line);
  return "fault" in parsed ? parsed.fault : (parsed.object as unknown as ControlReply);
}
