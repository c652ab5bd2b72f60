/**
 * Everything that is counted, at one moment: plain figures, made by the primary (src/primary/figures.ts) from the
 * scoreboard, without asking any worker. Whatever counts never goes back while the server's generation lives: not when
 * a worker is replaced, a slot or a listener removed. Durations are in seconds.
 */
import type { AcceptError, GcKind, Phase } from "../base/measured.ts";
import type { CloseReason, RejectReason } from "../base/reasons.ts";
import type { DatagramStatus } from "./status.ts";

interface LoopDelay {
  readonly mean: number;
  readonly p99: number;
  readonly max: number;
}

interface GcFigures {
  readonly count: number;
  readonly seconds: number;
}

/**
 * Of one slot. Counts are those of all processes that ever served it; what is held or in flight now is that of all
 * that live; `pid`, `seat`, `state` and what only one process can have (event loop, heap, descriptors) are its owner's.
 */
export interface WorkerMetrics {
  readonly slot: number;
  /** 0: there is none at the moment. */
  readonly pid: number;
  /** -1: there is none. */
  readonly seat: number;
  readonly generation: number;
  /** A WorkerState; "dead" while there is nobody; "removed" for a slot that is no more. */
  readonly state: string;
  readonly restarts: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly rounds: number;
  /** Tasks that wait for a thread. */
  readonly waiting: number;
  readonly bytesHeldIn: number;
  readonly bytesHeldOut: number;
  readonly movedIn: number;
  readonly movedOut: number;
  readonly published: number;
  readonly dropped: number;
  readonly rejected: Readonly<Record<RejectReason, number>>;
  readonly acceptErrors: Readonly<Record<AcceptError, number>>;
  readonly openFds: number;
  readonly heapBytes: number;
  /** Of about the last second; `max` of the last minute, and of a loop that stands still since when. */
  readonly loopDelay: LoopDelay;
  readonly gc: Readonly<Record<GcKind, GcFigures>>;
  readonly phases: Readonly<Record<Phase, number>>;
  readonly inFlight: number;
  /** Age of the oldest request in flight; 0: there is none. As of about a second ago. */
  readonly oldestSeconds: number;
}

/** Of requests that are over. There are as many observations as there were such requests. */
interface DurationHistogram {
  /** Not cumulative; DURATION_BUCKETS_S and, last, what is above them all. */
  readonly buckets: readonly number[];
  readonly sum: number;
}

/** Of one listener in one slot. */
export interface ListenerMetrics {
  readonly slot: number;
  /** Its name; REMOVED_LISTENERS for all that are no more. */
  readonly listener: string;
  readonly active: number;
  /** Accepted, and not served yet. */
  readonly prefaces: number;
  /** Whether or not a preface follows. Not those that came from another worker. */
  readonly accepted: number;
  /** Connections that came from another worker, or generation. */
  readonly movedIn: number;
  readonly movedOut: number;
  readonly opened: number;
  readonly requests: number;
  readonly shed: number;
  readonly late: number;
  readonly cancelled: number;
  readonly inFlight: number;
  readonly handshakes: number;
  readonly resumed: number;
  readonly closed: Readonly<Record<CloseReason, number>>;
  readonly duration: DurationHistogram;
  /** Absent where connections are served. */
  readonly datagrams?: Omit<DatagramStatus, "overflow">;
}

/** No listener can have this name. */
export const REMOVED_LISTENERS = "(removed)";

interface ServerMetrics {
  readonly generation: number;
  /** Slots that have, or should have, a worker of their own. */
  readonly slots: number;
  /** Worker processes that live, by state; those that are not their slot's owner any more count too. */
  readonly processes: Readonly<Record<string, number>>;
  /**
   * accepted + moved in - moved out - closed - active - opening, over everything. Not 0 for longer than a moment: a
   * connection's end, or its beginning, was not counted.
   */
  readonly unaccounted: number;
}

export interface MetricsSnapshot {
  /** By slot, also those that were removed. */
  readonly workers: readonly WorkerMetrics[];
  /** By slot and listener. */
  readonly listeners: readonly ListenerMetrics[];
  readonly server: ServerMetrics;
}
