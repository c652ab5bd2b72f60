/**
 * What the primary may ask a worker while it lives, and what the answer is, by kind. An answer is plain data, and
 * bounded: it travels over Node's IPC, between orders. `src/worker/answers.ts` gives them, `WorkerProcess.ask` asks.
 */
import type { LogLevel } from "../base/settings.ts";
import type { ConnectionFilter, ConnectionRow, ConnectionSort, SortOrder } from "./inspection.ts";
import type { UserMetricsAnswer } from "./user-metrics.ts";

/** Connections in their order, by what they are ordered by: `handles` has two numbers for each key. */
export interface ConnectionKeys {
  /** Connections that fit the filter. */
  readonly total: number;
  readonly keys: readonly number[];
  readonly handles: readonly number[];
}

export interface KeysAsked extends Omit<ConnectionFilter, "worker"> {
  readonly sort: ConnectionSort;
  readonly order: SortOrder;
  /** The first so many. */
  readonly most: number;
}

interface Questions {
  connectionKeys: { readonly asked: KeysAsked; readonly answer: ConnectionKeys };
  /** Rows of connections by their handles, in their order; null for one that has gone meanwhile. */
  connectionRows: {
    readonly asked: { readonly handles: readonly number[] };
    readonly answer: { readonly rows: readonly (ConnectionRow | null)[] };
  };
  /** Resets a connection. */
  kill: { readonly asked: { readonly id: string }; readonly answer: { readonly killed: boolean } };
  /** Writes a CPU profile of so many seconds to a file, which must not exist. */
  cpuProfile: {
    readonly asked: { readonly path: string; readonly seconds: number };
    readonly answer: Record<string, never>;
  };
  /** Ends the profile that is being taken, if there is one: it is written as it is. */
  endProfile: { readonly asked: Record<string, never>; readonly answer: Record<string, never> };
  /** Writes a heap snapshot to a file; the event loop stands still meanwhile. */
  heapSnapshot: { readonly asked: { readonly path: string }; readonly answer: Record<string, never> };
  /** Log from this level on, until the next configuration or worker. */
  logLevel: { readonly asked: { readonly level: LogLevel }; readonly answer: { readonly level: LogLevel } };
  /** What the service's own prom-client metrics say. */
  userMetrics: { readonly asked: Record<string, never>; readonly answer: UserMetricsAnswer };
}

export type QuestionKind = keyof Questions;
export type Asked<Kind extends QuestionKind> = Questions[Kind]["asked"];
export type Answer<Kind extends QuestionKind> = Questions[Kind]["answer"];

/** A question as it travels. */
export type Question = {
  [Kind in QuestionKind]: { readonly kind: Kind; readonly asked: Asked<Kind> };
}[QuestionKind];
