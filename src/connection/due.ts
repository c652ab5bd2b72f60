/**
 * Which deadline of a connection falls due next. The clocks are kept by the engine (last byte in, last progress
 * out) and by the connection; nothing is armed or reset per message.
 */
import type { CloseReason } from "../base/reasons.ts";
import { COUNTER } from "../engine/layout.ts";
import type { Beat } from "./beat.ts";
import type { Deadlines } from "./deadlines.ts";
import type { Endpoint } from "./endpoint.ts";

/** What the connection itself knows. */
export interface Standing {
  readonly deadlines: Deadlines;
  /** Handlers run, or input is held back: silence is not the peer's. */
  readonly busy: boolean;
  /** Input is held back. */
  readonly blocked: boolean;
  /** Clock (ms) until which it was this side that kept the connection from going on. */
  readonly busyUntil: number;
  /** Clock (ms) since which the peer owes the rest of a frame; 0: it owes none. */
  readonly frameSince: number;
  /** Bytes of that frame that are here. */
  readonly frameBytes: number;
  /** Clock (ms) at which it must end, or begin to: `max-age`. */
  readonly endsAt: number;
  /** While it is open, of a service that has heartbeats. */
  readonly beat: Beat | undefined;
  /** Clock (ms) at which to look for requests that are late; Infinity: there are none that wait. */
  readonly requestAt: number;
  /** Clock (ms) until which it waits for the peer to close it; 0: it does not. */
  readonly lingersUntil: number;
}

export interface Due {
  /** Clock, ms; Infinity when nothing is. */
  readonly at: number;
  readonly reason: CloseReason;
}

/** When a connection that was accepted at `openedAt` is `max-age` old. The part of a millisecond is its lot. */
export function agesAt({ ageJitter }: Endpoint, { ageMs }: Deadlines, openedAt: number): number {
  return openedAt + ageMs * (1 - ageJitter * (openedAt % 1));
}

/** `openedAt` of a connection that begins now: whole ms, and a lot below 1. */
export const drawOpenedAt = (now: number): number => Math.floor(now) + Math.random();

function silenceOrStall(endpoint: Endpoint, slot: number, now: number, standing: Standing): Due {
  const { counters, unsent } = endpoint.transport;
  const { deadlines, beat, busyUntil } = standing;
  const progressAt = counters[slot * COUNTER.words + COUNTER.progressAt] as number;
  const stalls = unsent[slot] !== 0;
  // Where that is off nothing would ask again once the bytes have left.
  if (stalls && deadlines.writeStallMs === Number.POSITIVE_INFINITY) {
    return { at: now + deadlines.idleMs, reason: "idle-timeout" };
  }
  if (stalls) return { at: progressAt + deadlines.writeStallMs, reason: "write-stall" };
  const receivedAt = counters[slot * COUNTER.words + COUNTER.receivedAt] as number;
  if (standing.busy) return { at: now + deadlines.idleMs, reason: "idle-timeout" };
  const active = beat?.idleSince({ receivedAt, progressAt }, standing.frameSince !== 0);
  const since = Math.max(active ?? Math.max(receivedAt, progressAt), busyUntil);
  return { at: since + deadlines.idleMs, reason: "idle-timeout" };
}

/** The time that the bytes of a frame have earned it, ms. */
const earnedMs = ({ minRate }: Endpoint, bytes: number): number => (1_000 * bytes) / minRate;

/** How often a connection whose heartbeat is held up is looked at. */
const HELD_LOOK_MS = 100;

/** What is held back by this side, or waits to be sent, is judged by other deadlines. */
function nextBeatAt(endpoint: Endpoint, slot: number, now: number, beat: Beat, standing: Standing): number {
  const { counters, unsent } = endpoint.transport;
  const progressAt = counters[slot * COUNTER.words + COUNTER.progressAt] as number;
  const receivedAt = counters[slot * COUNTER.words + COUNTER.receivedAt] as number;
  const held = standing.blocked || unsent[slot] !== 0;
  const { heartbeatMs } = standing.deadlines;
  // Nobody says when that is over, and the silence may have lasted long enough by then.
  if (held) return now + Math.min(HELD_LOOK_MS, heartbeatMs);
  return beat.silentSince({ receivedAt, progressAt }, standing.busyUntil) + heartbeatMs;
}

export function nextDue(endpoint: Endpoint, slot: number, now: number, standing: Standing): Due {
  const { counters } = endpoint.transport;
  const { frameSince, deadlines, beat } = standing;
  const base = slot * COUNTER.words;
  let due = silenceOrStall(endpoint, slot, now, standing);
  const firstByteAt = (counters[base + COUNTER.receivedAt] as number) + deadlines.firstByteMs;
  if (counters[base + COUNTER.received] === 0 && firstByteAt < due.at) {
    due = { at: firstByteAt, reason: "first-byte-timeout" };
  }
  if (frameSince !== 0) {
    const frameAt = frameSince + deadlines.frameMs + earnedMs(endpoint, standing.frameBytes);
    if (frameAt < due.at) due = { at: frameAt, reason: "frame-timeout" };
  }
  if (standing.endsAt < due.at) due = { at: standing.endsAt, reason: "max-age" };
  if (beat) {
    const beatAt = nextBeatAt(endpoint, slot, now, beat, standing);
    if (beatAt < due.at) due = { at: beatAt, reason: "heartbeat-missed" };
  }
  if (standing.requestAt < due.at) due = { at: standing.requestAt, reason: "request-timeout" };
  if (standing.lingersUntil > now && standing.lingersUntil < due.at)
    due = { at: standing.lingersUntil, reason: "drain" };
  return due;
}
