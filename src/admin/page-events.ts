/**
 * What the live page is told once a second: the server's status and its counters, boiled down to what is drawn. Counters
 * stay cumulative, and the page takes the differences: so an event that a slow reader missed costs a second of detail
 * and no correctness. Pure, and its cost depends on workers and listeners, never on connections.
 */
import { DURATION_BUCKETS_S } from "../base/buckets.ts";
import type { CloseReason, RejectReason } from "../base/reasons.ts";
import type { ListenerMetrics, MetricsSnapshot, WorkerMetrics } from "../control/metrics-snapshot.ts";
import type {
  ChangeStatus,
  DrainingStatus,
  Health,
  PrimaryState,
  ServerStatus,
  Traffic,
  WorkerState,
} from "../control/status.ts";

/** A worker's place; counters go on when the process in it is replaced. */
export interface PageWorker {
  readonly slot: number;
  readonly pid: number;
  readonly generation: number;
  readonly state: WorkerState;
  readonly restarts: number;
  readonly open: number;
  readonly requests: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** Tasks that wait for a thread. */
  readonly waiting: number;
  readonly inFlight: number;
  /** Age of its oldest request. */
  readonly oldestMs: number;
  /** The 99th percentile of the last second. */
  readonly loopDelayMs: number;
  readonly loopDelayMaxMs: number;
  readonly heapBytes: number;
  readonly cpuPercent?: number;
  readonly memoryBytes?: number;
}

export interface PageListener {
  readonly name: string;
  readonly address: string;
  readonly service: string;
  readonly open: number;
  readonly accepted: number;
  readonly requests: number;
  readonly shed: number;
  /** Durations by DURATION_BUCKETS_S, not cumulative, and at the end those above them. */
  readonly durations: readonly number[];
  /** Of a listener for datagrams: handed to the service, sent, and whatever was lost. */
  readonly datagrams?: { readonly received: number; readonly sent: number; readonly lost: number };
}

/** One `data:` of GET /events. */
export interface PageEvent {
  /** Epoch, by the server's clock. */
  readonly atMs: number;
  /** Differences of this one are what rates are made of; it begins anew with each primary. */
  readonly uptimeMs: number;
  readonly pid: number;
  readonly version: string;
  readonly state: PrimaryState;
  readonly health: Health;
  readonly generation: number;
  readonly configVersion: number;
  readonly source: string;
  readonly lastChange?: ChangeStatus;
  /** Of the primary. */
  readonly cpuPercent?: number;
  readonly memoryBytes?: number;
  readonly totals: Omit<Traffic, "published" | "dropped" | "logDropped"> & {
    readonly prefaces: number;
    readonly closed: number;
    readonly restarts: number;
  };
  readonly workers: readonly PageWorker[];
  readonly draining: readonly DrainingStatus[];
  readonly listeners: readonly PageListener[];
  /** Only those that happened. */
  readonly closes: Partial<Record<CloseReason, number>>;
  readonly rejections: Partial<Record<RejectReason, number>>;
  readonly acceptErrors: Readonly<Record<string, number>>;
  /** The first certificate to expire, ISO 8601, and what is wrong with files that are not used. */
  readonly tls: { readonly notAfter?: string; readonly problems: readonly string[] };
}

function sum<T>(of: readonly T[], value: (each: T) => number): number {
  return of.reduce((total, each) => total + value(each), 0);
}

function happened<Name extends string>(counts: Readonly<Record<Name, number>>): Partial<Record<Name, number>> {
  return Object.fromEntries(Object.entries<number>(counts).filter(([, count]) => count > 0)) as Partial<
    Record<Name, number>
  >;
}

/** Sums by name of what each worker counted by name. */
function sumByName(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const each of counts) {
    for (const [name, count] of Object.entries(each)) if (count > 0) total[name] = (total[name] ?? 0) + count;
  }
  return total;
}

function durationsOf(rows: readonly ListenerMetrics[]): number[] {
  const total = new Array<number>(DURATION_BUCKETS_S.length + 1).fill(0);
  for (const { duration } of rows) {
    for (const bucket of total.keys()) total[bucket] = (total[bucket] ?? 0) + (duration.buckets[bucket] ?? 0);
  }
  return total;
}

function listenersOf({ listeners }: ServerStatus, rows: ReadonlyMap<string, ListenerMetrics[]>): PageListener[] {
  return listeners.map(({ name, address, service, open, requests, shed, datagrams }) => {
    const own = rows.get(name) ?? [];
    const lost = datagrams ? datagrams.overflow + datagrams.dropped + datagrams.limited + datagrams.failed : 0;
    return {
      ...{ name, address, service, open, requests, shed },
      accepted: sum(own, ({ accepted }) => accepted),
      durations: durationsOf(own),
      ...(datagrams ? { datagrams: { received: datagrams.received, sent: datagrams.sent, lost } } : {}),
    };
  });
}

function workersOf(status: ServerStatus, { workers, listeners }: MetricsSnapshot): PageWorker[] {
  const bySlot = new Map<number, WorkerMetrics>(workers.map((worker) => [worker.slot, worker]));
  const requests = new Map<number, number>();
  for (const row of listeners) requests.set(row.slot, (requests.get(row.slot) ?? 0) + row.requests);
  return status.workers.map(({ slot, pid, state, restarts, open, waiting, cpuPercent, memoryBytes, ...worker }) => {
    const metrics = bySlot.get(slot);
    return {
      ...{ slot, pid, state, restarts, open, waiting },
      generation: metrics?.generation ?? status.generation,
      requests: requests.get(slot) ?? worker.requests,
      bytesReceived: metrics?.bytesReceived ?? worker.bytesReceived,
      bytesSent: metrics?.bytesSent ?? worker.bytesSent,
      inFlight: metrics?.inFlight ?? 0,
      oldestMs: (metrics?.oldestSeconds ?? 0) * 1000,
      loopDelayMs: (metrics?.loopDelay.p99 ?? 0) * 1000,
      loopDelayMaxMs: (metrics?.loopDelay.max ?? 0) * 1000,
      heapBytes: metrics?.heapBytes ?? 0,
      ...(cpuPercent === undefined ? {} : { cpuPercent }),
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
    };
  });
}

function tlsOf({ tls }: ServerStatus): PageEvent["tls"] {
  const [notAfter] = tls.flatMap(({ certificates }) => certificates.map((each) => each.notAfter)).sort();
  const problems = tls.flatMap(({ listener, problem }) => (problem ? [`${listener}: ${problem.message}`] : []));
  return { ...(notAfter === undefined ? {} : { notAfter }), problems };
}

/** The event of this moment. */
export function pageEvent(status: ServerStatus, metrics: MetricsSnapshot, atMs: number): PageEvent {
  const { totals } = status;
  const rows = new Map<string, ListenerMetrics[]>();
  for (const row of metrics.listeners) rows.set(row.listener, [...(rows.get(row.listener) ?? []), row]);
  return {
    atMs,
    uptimeMs: status.uptimeMs,
    pid: status.pid,
    version: status.version,
    state: status.state,
    health: status.health,
    generation: status.generation,
    configVersion: status.configVersion,
    source: status.source,
    ...(status.lastChange ? { lastChange: status.lastChange } : {}),
    ...(status.cpuPercent === undefined ? {} : { cpuPercent: status.cpuPercent }),
    ...(status.memoryBytes === undefined ? {} : { memoryBytes: status.memoryBytes }),
    totals: {
      open: totals.open,
      prefaces: sum(status.listeners, ({ prefaces }) => prefaces),
      accepted: totals.accepted,
      closed: sum(Object.values(status.closes), (count) => count),
      rejected: totals.rejected,
      requests: totals.requests,
      shed: totals.shed,
      late: totals.late,
      cancelled: totals.cancelled,
      bytesReceived: totals.bytesReceived,
      bytesSent: totals.bytesSent,
      bytesHeldIn: totals.bytesHeldIn,
      bytesHeldOut: totals.bytesHeldOut,
      restarts: totals.restarts,
    },
    workers: workersOf(status, metrics),
    draining: status.draining,
    listeners: listenersOf(status, rows),
    closes: happened(status.closes),
    rejections: happened(status.rejections),
    acceptErrors: sumByName(metrics.workers.map(({ acceptErrors }) => acceptErrors)),
    tls: tlsOf(status),
  };
}
