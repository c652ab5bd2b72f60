/** What the live page is made of, without a server: a status and a snapshot that can be told to move. */
import type { PageSource } from "#src/admin/page.js";
import { DURATION_BUCKETS } from "#src/base/buckets.js";
import { ACCEPT_ERRORS, GC_KINDS, PHASES } from "#src/base/measured.js";
import { CLOSE_REASONS, REJECT_REASONS } from "#src/base/reasons.js";
import type { ListenerMetrics, MetricsSnapshot, WorkerMetrics } from "#src/control/metrics-snapshot.js";
import type { ServerStatus, Traffic, WorkerStatus } from "#src/control/status.js";

function zeros<Name extends string>(names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
}

export const NO_TRAFFIC: Traffic = {
  ...{ open: 0, accepted: 0, rejected: 0, requests: 0, shed: 0, late: 0, cancelled: 0, bytesReceived: 0 },
  ...{ bytesSent: 0, bytesHeldIn: 0, bytesHeldOut: 0, published: 0, dropped: 0 },
};

export function workerStatus(slot: number, own: Partial<WorkerStatus> = {}): WorkerStatus {
  const { waiting = 0, ...rest } = own;
  const counts = { ...NO_TRAFFIC, movedIn: 0, movedOut: 0, waiting, restarts: 0 };
  return { ...counts, index: slot, slot, pid: 100 + slot, state: "accepting", ...rest };
}

export function serverStatus(own: Partial<ServerStatus> = {}): ServerStatus {
  return {
    ...{ pid: 42, version: "0.1.0", state: "running", health: "ok", generation: 1, configVersion: 1 },
    ...{ startedAt: "2026-01-01T00:00:00.000Z", uptimeMs: 1000, control: "/run/c.sock", source: "/etc/headrace.yaml" },
    listeners: [
      {
        ...{ name: "lines", address: "127.0.0.1:9000", service: "echo-line", open: 0, prefaces: 0, opened: 0 },
        ...{ requests: 0, shed: 0, handshakes: 0, resumed: 0 },
      },
    ],
    ...{ tls: [], slots: 2, workers: [workerStatus(0), workerStatus(1)], draining: [] },
    totals: { ...NO_TRAFFIC, restarts: 0 },
    unaccounted: 0,
    ...{ closes: zeros(CLOSE_REASONS), rejections: zeros(REJECT_REASONS) },
    ...own,
  };
}

export function workerMetrics(slot: number, own: Partial<WorkerMetrics> = {}): WorkerMetrics {
  return {
    ...{ slot, pid: 100 + slot, seat: slot, generation: 1, state: "accepting", restarts: 0, rounds: 0, waiting: 0 },
    ...{ bytesReceived: 0, bytesSent: 0, bytesHeldIn: 0, bytesHeldOut: 0, movedIn: 0, movedOut: 0 },
    ...{ published: 0, dropped: 0, openFds: 20, heapBytes: 0, inFlight: 0, oldestSeconds: 0 },
    ...{ rejected: zeros(REJECT_REASONS), acceptErrors: zeros(ACCEPT_ERRORS), phases: zeros(PHASES) },
    loopDelay: { mean: 0, p99: 0, max: 0 },
    gc: Object.fromEntries(GC_KINDS.map((kind) => [kind, { count: 0, seconds: 0 }])) as WorkerMetrics["gc"],
    ...own,
  };
}

export function listenerMetrics(slot: number, own: Partial<ListenerMetrics> = {}): ListenerMetrics {
  return {
    ...{ slot, listener: "lines", active: 0, prefaces: 0, accepted: 0, movedIn: 0, movedOut: 0, opened: 0 },
    ...{ requests: 0, shed: 0, late: 0, cancelled: 0, inFlight: 0, handshakes: 0, resumed: 0 },
    closed: zeros(CLOSE_REASONS),
    duration: { buckets: new Array<number>(DURATION_BUCKETS).fill(0), sum: 0 },
    ...own,
  };
}

export function metricsSnapshot(own: Partial<MetricsSnapshot> = {}): MetricsSnapshot {
  return {
    workers: [workerMetrics(0), workerMetrics(1)],
    listeners: [listenerMetrics(0), listenerMetrics(1)],
    server: { generation: 1, slots: 2, processes: { accepting: 2 }, unaccounted: 0 },
    ...own,
  };
}

/** A source of fixed figures. */
export function pageSource(own: Partial<PageSource> = {}): PageSource {
  return {
    ending: new AbortController().signal,
    status: async () => serverStatus(),
    snapshot: () => metricsSnapshot(),
    ...own,
  };
}
