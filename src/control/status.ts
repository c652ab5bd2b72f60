/** What `status` answers: plain figures, units in the names. Made in src/primary, printed in src/cli. */
import type { CloseReason } from "../base/reasons.ts";

export type PrimaryState = "starting" | "running" | "stopping";

/** Where a worker stands on its way; in this order, and never back. */
export const WORKER_STATES = ["starting", "loaded", "bound", "accepting", "stopping", "dead"] as const;
export type WorkerState = (typeof WORKER_STATES)[number];

/** Counted since the server started, over all workers that ever were. `open` is now. */
export interface Traffic {
  readonly open: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly requests: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
}

export interface ListenerStatus {
  readonly name: string;
  readonly address: string;
  readonly service: string;
  readonly open: number;
  readonly opened: number;
  readonly requests: number;
}

/** Figures of one process; `undefined` where /proc did not tell. */
export interface ProcessUsage {
  readonly cpuPercent?: number;
  readonly memoryBytes?: number;
}

/** Counted since this worker process started. */
export interface WorkerStatus extends Traffic, ProcessUsage {
  readonly index: number;
  readonly pid: number;
  readonly state: WorkerState;
  /** How often a worker of this index was replaced. */
  readonly restarts: number;
}

export interface ServerStatus extends ProcessUsage {
  readonly pid: number;
  readonly version: string;
  readonly state: PrimaryState;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly uptimeMs: number;
  readonly control: string;
  /** Where the configuration came from. */
  readonly source: string;
  readonly listeners: readonly ListenerStatus[];
  readonly workers: readonly WorkerStatus[];
  readonly totals: Traffic & { readonly restarts: number };
  readonly closes: Readonly<Record<CloseReason, number>>;
}
