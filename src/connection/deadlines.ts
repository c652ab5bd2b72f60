/**
 * The deadlines that a connection obeys: those of its listener, or over them its own (`connection.setTimeouts`). What
 * it does not have of its own follows the listener's, also when a reload changes them.
 */
import { HeadraceError } from "../base/errors.ts";
import type { Timeouts } from "../base/settings.ts";
import { TIMEOUT_KINDS } from "../config/bounds.ts";
import { Wrong } from "../config/kinds.ts";
import type { ConnectionTimeouts } from "../service/connection.ts";

/** All in ms; Infinity: off. */
export interface Deadlines {
  readonly firstByteMs: number;
  readonly frameMs: number;
  readonly idleMs: number;
  readonly writeStallMs: number;
  readonly ageMs: number;
  readonly heartbeatMs: number;
  /** To send what is unsent when a connection is closed. */
  readonly flushMs: number;
}

/** To send what is unsent when a connection is closed and writeStall is off. */
const FLUSH_MS = 30_000;

export const flushMsOf = (writeStallMs: number): number =>
  writeStallMs === Number.POSITIVE_INFINITY ? FLUSH_MS : writeStallMs;

export const msOf = (deadline: number | "off"): number => (deadline === "off" ? Number.POSITIVE_INFINITY : deadline);

/** In this order they move. */
export const OWN_DEADLINES = ["firstByte", "frame", "idle", "writeStall", "age", "heartbeat"] as const;
type Name = (typeof OWN_DEADLINES)[number];

/** What a connection without any has. */
export const NONE_OWN: readonly number[] = [];

export class OwnDeadlines implements Deadlines {
  readonly #common: Deadlines;
  /** By place in OWN_DEADLINES, ms; NaN where the listener's holds. */
  readonly #own: number[];

  constructor(common: Deadlines, own: readonly number[] = NONE_OWN) {
    this.#common = common;
    this.#own = OWN_DEADLINES.map((_, place) => own[place] ?? Number.NaN);
  }

  get own(): readonly number[] {
    return this.#own;
  }

  get firstByteMs(): number {
    return this.#get("firstByte") ?? this.#common.firstByteMs;
  }

  get frameMs(): number {
    return this.#get("frame") ?? this.#common.frameMs;
  }

  get idleMs(): number {
    return this.#get("idle") ?? this.#common.idleMs;
  }

  get writeStallMs(): number {
    return this.#get("writeStall") ?? this.#common.writeStallMs;
  }

  get ageMs(): number {
    return this.#get("age") ?? this.#common.ageMs;
  }

  get heartbeatMs(): number {
    return this.#get("heartbeat") ?? this.#common.heartbeatMs;
  }

  get flushMs(): number {
    const own = this.#get("writeStall");
    return own === undefined ? this.#common.flushMs : flushMsOf(own);
  }

  /** Takes over what is named, or nothing at all: throws `service-invalid` for what is no timeout. */
  set(given: ConnectionTimeouts): void {
    const changes = Object.entries(given).map(([name, value]) => [placeOf(name), readMs(name, value)] as const);
    for (const [place, ms] of changes) this.#own[place] = ms;
  }

  #get(name: Name): number | undefined {
    const ms = this.#own[OWN_DEADLINES.indexOf(name)] as number;
    return Number.isNaN(ms) ? undefined : ms;
  }
}

function placeOf(name: string): number {
  const place = OWN_DEADLINES.indexOf(name as Name);
  if (place < 0) throw invalid(name, "unknown", OWN_DEADLINES.join(", "));
  return place;
}

function readMs(name: string, value: unknown): number {
  if (value === undefined) return Number.NaN;
  const kind = TIMEOUT_KINDS[name as keyof Timeouts];
  const read = kind.read(value);
  if (read instanceof Wrong) throw invalid(name, read.problem, read.allowed ?? kind.allowed);
  return msOf(read);
}

function invalid(option: string, problem: string, allowed: string): HeadraceError {
  return new HeadraceError("service-invalid", `setTimeouts: ${option}: ${problem}; allowed: ${allowed}`, {
    option,
    allowed,
  });
}
