/** What the processes of a verified load and the one that started them say to each other. Plain data, over IPC. */
import type { Side } from "./tally.js";

/** What one process does of a load. */
export interface LoadShare {
  readonly host: string;
  readonly port: number;
  /** Addresses to connect from, in turn. */
  readonly sources: readonly string[];
  /** Held by this process; their numbers begin with `first`. */
  readonly connections: number;
  readonly first: number;
  /** Between two lines of a held connection. */
  readonly intervalMs: number;
  /** Unanswered lines that a held connection may have. */
  readonly window: number;
  readonly churnPerSecond: number;
  readonly churnFirst: number;
  readonly tagged: boolean;
  /** The process ends after this, whatever happens. */
  readonly mostMs: number;
}

/** What happened since the last report. */
export interface ProcessReport {
  readonly held: Side;
  readonly churn: Side;
  /** Held connections that were cut, by the last tag that each had seen. */
  readonly cutByTag: Readonly<Record<string, number>>;
  readonly faults: readonly string[];
  /** Longest that this process itself stood still: no pause below it can be blamed on the server. */
  readonly ownPauseMs: number;
}

export type ToLoad =
  | { readonly type: "begin"; readonly share: LoadShare }
  | { readonly type: "take" }
  /** Stops, but not before that many further replies have come to held connections, or some seconds have passed. */
  | { readonly type: "stop"; readonly replies: number };

export type FromLoad = { readonly type: "running" } | { readonly type: "report"; readonly report: ProcessReport };
