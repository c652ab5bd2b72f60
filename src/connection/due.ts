/**
 * Which deadline of a connection falls due next. The clocks are kept by the engine (last byte in, last progress
 * out) and by the connection; nothing is armed or reset per message.
 */
import type { CloseReason } from "../base/reasons.ts";
import { COUNTER } from "../engine/layout.ts";
import type { Endpoint } from "./endpoint.ts";

/** What the connection itself knows. */
export interface Standing {
  /** Handlers run, or input is held back: silence is not the peer's. */
  readonly busy: boolean;
  /** Clock (ms) until which it was this side that kept the connection from going on. */
  readonly busyUntil: number;
  /** Clock (ms) since which the peer owes the rest of a frame; 0: it owes none. */
  readonly frameSince: number;
  /** Clock (ms) by which the first of its requests must be answered; Infinity: there is none. */
  readonly requestAt: number;
}

export interface Due {
  /** Clock, ms; Infinity when nothing is. */
  readonly at: number;
  readonly reason: CloseReason;
}

function silenceOrStall(endpoint: Endpoint, slot: number, now: number, standing: Standing): Due {
  const { transport, idleMs, writeStallMs } = endpoint;
  const base = slot * COUNTER.words;
  const progressAt = transport.counters[base + COUNTER.progressAt] as number;
  if (transport.unsent[slot] !== 0) return { at: progressAt + writeStallMs, reason: "write-stall" };
  const receivedAt = transport.counters[base + COUNTER.receivedAt] as number;
  const since = standing.busy ? now : Math.max(receivedAt, progressAt, standing.busyUntil);
  return { at: since + idleMs, reason: "idle-timeout" };
}

export function nextDue(endpoint: Endpoint, slot: number, now: number, standing: Standing): Due {
  const { counters } = endpoint.transport;
  const base = slot * COUNTER.words;
  const { frameSince } = standing;
  let due = silenceOrStall(endpoint, slot, now, standing);
  const firstByteAt = (counters[base + COUNTER.receivedAt] as number) + endpoint.firstByteMs;
  if (counters[base + COUNTER.received] === 0 && firstByteAt < due.at) {
    due = { at: firstByteAt, reason: "first-byte-timeout" };
  }
  if (frameSince !== 0 && frameSince + endpoint.frameMs < due.at) {
    due = { at: frameSince + endpoint.frameMs, reason: "frame-timeout" };
  }
  if (standing.requestAt < due.at) due = { at: standing.requestAt, reason: "request-timeout" };
  return due;
}
