/**
 * The listeners' rows of a snapshot as metrics tell them: apart for each worker, or the workers of a listener together
 * where there are too many pairs. Added up once for each reading, however many families ask.
 */
import { DURATION_BUCKETS } from "../base/buckets.ts";
import type { ListenerMetrics, MetricsSnapshot } from "../control/metrics-snapshot.ts";

/** Pairs of worker and listener at most that have series of their own: about 30 each. */
export const PAIRS_MAX = 256;

/** What is a plain number in a row. */
export type Counted = Exclude<
  keyof ListenerMetrics,
  "slot" | "listener" | "movedIn" | "movedOut" | "closed" | "duration" | "datagrams"
>;

const COUNTED: readonly Counted[] = [
  "active",
  "prefaces",
  "accepted",
  "opened",
  "requests",
  "shed",
  "late",
  "cancelled",
  "inFlight",
  "handshakes",
  "resumed",
];

interface Counts extends Record<Counted, number> {
  readonly listener: string;
  readonly closed: Record<string, number>;
  readonly duration: { readonly buckets: number[]; sum: number };
}

export interface Row extends Readonly<Counts> {
  /** Number of the slot, or "all". */
  readonly worker: string;
}

export interface ListenerRows {
  readonly rows: readonly Row[];
  /** All workers together, of listeners for connections. */
  readonly totals: readonly Row[];
  /** By listener for datagrams: how many by outcome. */
  readonly datagrams: ReadonlyMap<string, Readonly<Record<string, number>>>;
}

function nothing(listener: string): Counts {
  const counts = Object.fromEntries(COUNTED.map((field) => [field, 0])) as Record<Counted, number>;
  return {
    ...counts,
    listener,
    closed: {},
    duration: { buckets: new Array<number>(DURATION_BUCKETS).fill(0), sum: 0 },
  };
}

function addCounts(into: Record<string, number>, from: Readonly<Record<string, number>>): void {
  for (const [key, count] of Object.entries(from)) into[key] = (into[key] ?? 0) + count;
}

function add(into: Counts, from: ListenerMetrics): void {
  for (const field of COUNTED) into[field] += from[field];
  addCounts(into.closed, from.closed);
  for (const [index, count] of from.duration.buckets.entries()) {
    into.duration.buckets[index] = (into.duration.buckets[index] ?? 0) + count;
  }
  into.duration.sum += from.duration.sum;
}

function rowOf(from: ListenerMetrics): Row {
  const counts = nothing(from.listener);
  add(counts, from);
  return { ...counts, worker: String(from.slot) };
}

function prepare({ listeners }: Pick<MetricsSnapshot, "listeners">): ListenerRows {
  const totals = new Map<string, Counts>();
  const datagrams = new Map<string, Record<string, number>>();
  const serving = listeners.filter((row) => row.datagrams === undefined);
  for (const row of listeners) {
    if (row.datagrams === undefined) {
      const sum = totals.get(row.listener) ?? nothing(row.listener);
      totals.set(row.listener, sum);
      add(sum, row);
    } else {
      const sum = datagrams.get(row.listener) ?? {};
      datagrams.set(row.listener, sum);
      addCounts(sum, row.datagrams);
    }
  }
  const together = [...totals.values()].map((sum): Row => ({ ...sum, worker: "all" }));
  return { rows: serving.length > PAIRS_MAX ? together : serving.map(rowOf), totals: together, datagrams };
}

const prepared = new WeakMap<MetricsSnapshot, ListenerRows>();

/** Of one snapshot. */
export function listenerRows(snapshot: MetricsSnapshot): ListenerRows {
  const rows = prepared.get(snapshot) ?? prepare(snapshot);
  prepared.set(snapshot, rows);
  return rows;
}
