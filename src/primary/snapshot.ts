/**
 * Makes a MetricsSnapshot: per slot, what its dead workers counted (past.ts) and what its living ones have in the
 * scoreboard by now. Called by Figures; touches no worker, and reads only rows that are in use.
 */
import { DURATION_BUCKETS } from "../base/buckets.ts";
import { ACCEPT_ERRORS, GC_KINDS, PHASES, type Phase } from "../base/measured.ts";
import { CLOSE_REASONS, REJECT_REASONS } from "../base/reasons.ts";
import {
  type ListenerMetrics,
  type MetricsSnapshot,
  REMOVED_LISTENERS,
  type WorkerMetrics,
} from "../control/metrics-snapshot.ts";
import { TICK_MS } from "../engine/layout.ts";
import {
  DATAGRAM_FIELDS,
  HEAD_CELLS,
  LISTENER_CLOSED,
  LISTENER_DATAGRAMS,
  LISTENER_DURATIONS,
  LISTENER_FIELDS,
  type ListenerField,
  ROW_CELLS,
  WORKER_ACCEPT_ERRORS,
  WORKER_FIELDS,
  WORKER_GC,
  WORKER_GC_SECONDS,
  WORKER_REJECTED,
  type WorkerBlock,
  type WorkerField,
} from "../os/scoreboard.ts";
import type { Described } from "./figures.ts";
import { addCells, type Past } from "./past.ts";

/** In which a worker's clock ticks. */
const TICKING: ReadonlySet<string> = new Set(["accepting", "retired"]);

/** A living worker process. */
export interface CountedWorker {
  readonly slot: number;
  readonly seat: number;
  readonly pid: number;
  readonly state: string;
  /** The slot is its own: it is not its predecessor, which drains, nor one that is about to be. */
  readonly owner: boolean;
}

/** What listener a row is. */
export type Listeners = ReadonlyMap<number, { readonly name: string; readonly datagrams: boolean }>;

export interface Books {
  readonly workers: readonly CountedWorker[];
  readonly rows: readonly number[];
  /** Of `rows`, those that are no listener's now, while somebody still serves them: whose name they count for. */
  readonly former: ReadonlyMap<number, string>;
  readonly past: ReadonlyMap<number, Past>;
  block(seat: number): WorkerBlock;
  /** Clock of the workers, ms. */
  readonly now: number;
}

/** One slot's part of the books. */
interface Slot {
  readonly slot: number;
  readonly living: readonly CountedWorker[];
  readonly past: Past | undefined;
}

function byName<Name extends string>(
  names: readonly Name[],
  valueAt: (index: number) => number,
): Readonly<Record<Name, number>> {
  return Object.fromEntries(names.map((name, index) => [name, valueAt(index)])) as Record<Name, number>;
}

function slotsOf({ workers, past }: Books, wanted: number): Slot[] {
  const slots = new Set([...Array(wanted).keys(), ...past.keys(), ...workers.map(({ slot }) => slot)]);
  return [...slots]
    .sort((a, b) => a - b)
    .map((slot) => ({ slot, living: workers.filter((worker) => worker.slot === slot), past: past.get(slot) }));
}

function headOf({ living, past }: Slot, { block }: Books): Float64Array {
  const head = new Float64Array(HEAD_CELLS);
  if (past) addCells(head, past.head);
  for (const { seat } of living) addCells(head, block(seat).head);
  return head;
}

/** Since when a worker's event loop has not come round, s: one that stands still cannot say so itself. */
function ageOf({ seat, state }: CountedWorker, { block, now }: Books): number {
  const clock = block(seat).get("clock");
  return clock > 0 && TICKING.has(state) ? Math.max(0, now - clock) / 1_000 : 0;
}

function oldestOf(worker: CountedWorker, books: Books): number {
  const oldest = books.block(worker.seat).get("oldestSeconds");
  return oldest > 0 ? oldest + ageOf(worker, books) : 0;
}

function workerMetrics(slot: Slot, books: Books, { generation, slots, restartsOf }: Described): WorkerMetrics {
  const head = headOf(slot, books);
  const owner = slot.living.find((worker) => worker.owner) ?? slot.living[0];
  const all = (field: WorkerField): number => head[WORKER_FIELDS.indexOf(field)] ?? 0;
  const own = (field: WorkerField): number => (owner ? books.block(owner.seat).get(field) : 0);
  const late = owner ? ageOf(owner, books) - TICK_MS / 1_000 : 0;
  const inRows = (field: ListenerField): number => sumOf(slot, books, field);
  return {
    slot: slot.slot,
    pid: owner?.pid ?? 0,
    seat: owner?.seat ?? -1,
    generation,
    state: owner?.state ?? (slot.slot < slots ? "dead" : "removed"),
    restarts: restartsOf(slot.slot),
    bytesReceived: all("bytesReceived"),
    bytesSent: all("bytesSent"),
    rounds: all("rounds"),
    waiting: all("waiting"),
    bytesHeldIn: all("bytesHeldIn"),
    bytesHeldOut: all("bytesHeldOut"),
    movedIn: inRows("movedIn"),
    movedOut: inRows("movedOut"),
    published: all("published"),
    dropped: all("dropped"),
    rejected: byName(REJECT_REASONS, (index) => head[WORKER_REJECTED + index] ?? 0),
    acceptErrors: byName(ACCEPT_ERRORS, (index) => head[WORKER_ACCEPT_ERRORS + index] ?? 0),
    openFds: own("openFds"),
    heapBytes: own("heapBytes"),
    loopDelay: { mean: own("loopDelayMean"), p99: own("loopDelayP99"), max: Math.max(own("loopDelayMax"), late) },
    gc: Object.fromEntries(
      GC_KINDS.map((kind, index) => {
        return [kind, { count: head[WORKER_GC + index] ?? 0, seconds: head[WORKER_GC_SECONDS + index] ?? 0 }];
      }),
    ) as WorkerMetrics["gc"],
    phases: byName(PHASES, (index) => all(`${PHASES[index] as Phase}Seconds`)),
    inFlight: inRows("inFlight"),
    oldestSeconds: Math.max(0, ...slot.living.map((worker) => oldestOf(worker, books))),
  };
}

/** Over all rows that ever were. */
function sumOf({ living, past }: Slot, { rows, block }: Books, field: ListenerField): number {
  const cell = LISTENER_FIELDS.indexOf(field);
  let total = 0;
  for (const row of past?.gone.values() ?? []) total += row[cell] ?? 0;
  for (const row of past?.rows.values() ?? []) total += row[cell] ?? 0;
  for (const { seat } of living) total += block(seat).sum(field, rows);
  return total;
}

function rowOf({ living, past }: Slot, { block }: Books, index: number): Float64Array {
  const row = new Float64Array(ROW_CELLS);
  const before = past?.rows.get(index);
  if (before) addCells(row, before);
  for (const { seat } of living) addCells(row, block(seat).row(index));
  return row;
}

function listenerMetrics(slot: number, listener: string, datagrams: boolean, row: Float64Array): ListenerMetrics {
  const of = (field: ListenerField): number => row[LISTENER_FIELDS.indexOf(field)] ?? 0;
  return {
    slot,
    listener,
    active: of("active"),
    prefaces: of("prefaces"),
    accepted: of("accepted"),
    movedIn: of("movedIn"),
    movedOut: of("movedOut"),
    opened: of("opened"),
    requests: of("requests"),
    shed: of("shed"),
    late: of("late"),
    cancelled: of("cancelled"),
    inFlight: of("inFlight"),
    handshakes: of("handshakes"),
    resumed: of("resumed"),
    closed: byName(CLOSE_REASONS, (index) => row[LISTENER_CLOSED + index] ?? 0),
    duration: {
      buckets: [...row.subarray(LISTENER_DURATIONS, LISTENER_DURATIONS + DURATION_BUCKETS)],
      sum: of("durationSum"),
    },
    ...(datagrams ? { datagrams: byName(DATAGRAM_FIELDS, (index) => row[LISTENER_DATAGRAMS + index] ?? 0) } : {}),
  };
}

/** What a slot counted for a name in rows that are no listener's now: before its address changed, say. */
function formerOf(slot: Slot, books: Books, name: string): Float64Array {
  const row = new Float64Array(ROW_CELLS);
  const gone = slot.past?.gone.get(name);
  if (gone) addCells(row, gone);
  for (const [index, former] of books.former) if (former === name) addCells(row, rowOf(slot, books, index));
  return row;
}

function listenersOf(slot: Slot, books: Books, described: Described): ListenerMetrics[] {
  const known = [...described.listeners].map(([index, { name, datagrams }]) => {
    const row = formerOf(slot, books, name);
    addCells(row, rowOf(slot, books, index));
    return listenerMetrics(slot.slot, name, datagrams, row);
  });
  const removed = formerOf(slot, books, REMOVED_LISTENERS);
  if (removed.every((cell) => cell === 0)) return known;
  return [...known, listenerMetrics(slot.slot, REMOVED_LISTENERS, false, removed)];
}

function processesOf({ workers }: Books): Record<string, number> {
  const processes: Record<string, number> = {};
  for (const { state } of workers) processes[state] = (processes[state] ?? 0) + 1;
  return processes;
}

export function snapshotOf(books: Books, described: Described, unaccounted: number): MetricsSnapshot {
  const slots = slotsOf(books, described.slots);
  return {
    workers: slots.map((slot) => workerMetrics(slot, books, described)),
    listeners: slots.flatMap((slot) => listenersOf(slot, books, described)),
    server: {
      generation: described.generation,
      slots: described.slots,
      processes: processesOf(books),
      unaccounted,
    },
  };
}
