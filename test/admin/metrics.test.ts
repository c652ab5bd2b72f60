import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PAIRS_MAX } from "#src/admin/listener-rows.js";
import { FAMILIES, Metrics, metricsTable } from "#src/admin/metrics.js";
import type { MetricsReading } from "#src/admin/metrics-reading.js";
import { DURATION_BUCKETS, DURATION_BUCKETS_S } from "#src/base/buckets.js";
import { ACCEPT_ERRORS, GC_KINDS, PHASES } from "#src/base/measured.js";
import { CLOSE_REASONS, REJECT_REASONS } from "#src/base/reasons.js";
import type { ListenerMetrics, WorkerMetrics } from "#src/control/metrics-snapshot.js";
import { packageRoot } from "#src/os/addon.js";
import { DATAGRAM_FIELDS } from "#src/os/scoreboard.js";
import { type Exposition, readExposition } from "../support/exposition.js";

const all = <Name extends string, Value>(names: readonly Name[], value: Value): Record<Name, Value> =>
  Object.fromEntries(names.map((name) => [name, value])) as Record<Name, Value>;

const worker = (slot: number, rest: Partial<WorkerMetrics> = {}): WorkerMetrics => ({
  ...{ slot, pid: 100 + slot, seat: slot, generation: 1, state: "accepting", restarts: 0, rounds: 0, waiting: 0 },
  ...{ bytesReceived: 0, bytesSent: 0, bytesHeldIn: 0, bytesHeldOut: 0, movedIn: 0, movedOut: 0, published: 0 },
  ...{ dropped: 0, openFds: 20, heapBytes: 1, inFlight: 0, oldestSeconds: 0 },
  loopDelay: { mean: 0, p99: 0, max: 0 },
  rejected: all(REJECT_REASONS, 0),
  acceptErrors: all(ACCEPT_ERRORS, 0),
  gc: all(GC_KINDS, { count: 0, seconds: 0 }),
  phases: all(PHASES, 0),
  ...rest,
});

const listener = (slot: number, name: string, rest: Partial<ListenerMetrics> = {}): ListenerMetrics => ({
  ...{ slot, listener: name, active: 0, prefaces: 0, accepted: 0, movedIn: 0, movedOut: 0, opened: 0, requests: 0 },
  ...{ shed: 0, late: 0, cancelled: 0, inFlight: 0, handshakes: 0, resumed: 0, closed: all(CLOSE_REASONS, 0) },
  duration: { buckets: new Array<number>(DURATION_BUCKETS).fill(0), sum: 0 },
  ...rest,
});

const READING: MetricsReading = {
  snapshot: {
    workers: [worker(0), worker(1)],
    listeners: [listener(0, "lines"), listener(1, "lines")],
    server: { generation: 1, slots: 2, processes: {}, unaccounted: 0 },
  },
  server: {
    ...{ version: "1.2.3", node: "v20", generation: 1, configVersion: 1, upSeconds: 1, healthy: true, ready: true },
    ...{ connectionsMax: 10_000, workers: { accepting: 2 } },
  },
  processes: [],
  queues: [],
  listenLosses: undefined,
  sockets: undefined,
  overflows: {},
  certificates: {},
  unauthorized: 0,
  logLinesDropped: 0,
};

async function expose(reading: MetricsReading): Promise<Exposition> {
  const metrics = new Metrics({ read: async () => reading, workers: () => [], warn: () => {} });
  return readExposition((await metrics.render()).body);
}

const withListeners = (listeners: readonly ListenerMetrics[]): MetricsReading => ({
  ...READING,
  snapshot: { ...READING.snapshot, listeners },
});

test("names follow Prometheus' rules, and each is there once", () => {
  for (const { name, type, help } of FAMILIES) {
    assert.match(name, /^headrace_[a-z][a-z0-9_]*$/);
    assert.equal(name.endsWith("_total"), type === "counter", name);
    assert.match(help, /[^.]$/, name);
  }
  assert.equal(new Set(FAMILIES.map(({ name }) => name)).size, FAMILIES.length);
});

test("a histogram's buckets count what the smaller ones count, too", async () => {
  const buckets = Array.from({ length: DURATION_BUCKETS }, (_, index) => index);
  const shown = await expose(withListeners([listener(0, "lines", { duration: { buckets, sum: 12.5 } })]));
  const family = shown.families.get("headrace_request_duration_seconds") ?? assert.fail();
  assert.equal(family.type, "histogram");
  let total = 0;
  const expected = [...DURATION_BUCKETS_S, "+Inf"].map((le, index) => {
    total += index;
    return [`headrace_request_duration_seconds_bucket{worker="0",listener="lines",le="${le}"}`, total];
  });
  assert.deepEqual([...family.samples].slice(0, -2), expected);
  assert.equal(shown.sum("headrace_request_duration_seconds_count"), total);
  assert.equal(shown.sum("headrace_request_duration_seconds_sum"), 12.5);
});

test("every deadline has its close reason, a request's its count of those that were late", async () => {
  const closed = { ...all(CLOSE_REASONS, 0), "idle-timeout": 3, "write-stall": 4, "peer-closed": 9 };
  const shown = await expose(
    withListeners([listener(0, "lines", { closed, late: 7 }), listener(1, "lines", { closed })]),
  );
  const sum = (deadline?: string): number | undefined =>
    shown.sum("headrace_deadline_timeouts_total", deadline ? { deadline } : {});
  assert.deepEqual([sum("idle"), sum("write_stall"), sum("request"), sum()], [6, 8, 7, 21]);
  assert.equal(shown.sum("headrace_connections_closed_total", { reason: "peer-closed" }), 18);
});

test("where workers times listeners are too many, workers are told together, and nothing is lost", async () => {
  const names = ["a", "b", "c"];
  const rows = (slots: number): ListenerMetrics[] =>
    Array.from({ length: slots }, (_, slot) =>
      names.map((name) => listener(slot, name, { requests: 2, active: 1 })),
    ).flat();
  const few = Math.floor(PAIRS_MAX / names.length);
  const apart = await expose(withListeners(rows(few)));
  assert.equal(apart.families.get("headrace_requests_total")?.samples.size, few * names.length);
  const together = await expose(withListeners(rows(few + 1)));
  assert.deepEqual(
    [...(together.families.get("headrace_requests_total") ?? assert.fail()).samples],
    names.map((name) => [`headrace_requests_total{worker="all",listener="${name}"}`, 2 * (few + 1)]),
  );
});

test("a listener for datagrams has their outcomes, the kernel's too, and no connections", async () => {
  const datagrams = { ...all(DATAGRAM_FIELDS, 0), received: 5 };
  const rows = [listener(0, "feed", { datagrams }), listener(1, "feed", { datagrams }), listener(0, "lines")];
  const shown = await expose({ ...withListeners(rows), overflows: { feed: 3 } });
  assert.equal(shown.sum("headrace_datagrams_total", { listener: "feed", outcome: "received" }), 10);
  assert.equal(shown.sum("headrace_datagrams_total", { listener: "feed", outcome: "overflow" }), 3);
  assert.equal(shown.sum("headrace_active_connections", { listener: "feed" }), undefined);
});

test("handshakes are told of listeners with TLS alone, resumed ones apart", async () => {
  const rows = [listener(0, "secure", { handshakes: 5, resumed: 2 }), listener(0, "lines")];
  const shown = await expose({ ...withListeners(rows), certificates: { secure: 1_700_000_000_000 } });
  assert.deepEqual(
    [...(shown.families.get("headrace_tls_handshakes_total") ?? assert.fail()).samples.values()],
    [2, 3],
  );
  assert.equal(shown.sum("headrace_tls_certificate_expiry_seconds", { listener: "secure" }), 1_700_000_000);
});

test("what the kernel did not tell is absent, and what only a process has is so of a slot without one", async () => {
  const snapshot = { ...READING.snapshot, workers: [worker(0), worker(1, { pid: 0, bytesSent: 7, state: "dead" })] };
  const shown = await expose({ ...READING, snapshot });
  for (const name of ["sockets_time_wait", "listen_overflows_total"])
    assert.equal(shown.sum(`headrace_${name}`), undefined);
  assert.equal(shown.sum("headrace_heap_bytes", { worker: "1" }), undefined);
  assert.equal(shown.sum("headrace_bytes_sent_total", { worker: "1" }), 7);
});

test("scrapes at the same time share one reading; one that fails is not the next one's", async () => {
  let reads = 0;
  const metrics = new Metrics({
    read: async () => {
      if (++reads === 1) throw new Error("first");
      return READING;
    },
    workers: () => [],
    warn: () => {},
  });
  const failed = await Promise.allSettled([metrics.render(), metrics.render()]);
  assert.deepEqual(
    failed.map(({ status }) => status),
    ["rejected", "rejected"],
  );
  const [one, other] = await Promise.all([metrics.render(), metrics.render()]);
  assert.equal(one, other);
  assert.equal(reads, 2);
  assert.match(one?.contentType ?? "", /^text\/plain; version=0\.0\.4/);
});

test("the README has the whole table", () => {
  const readme = readFileSync(join(packageRoot(), "README.md"), "utf8");
  assert.ok(readme.includes(metricsTable()), `README.md, "Metrics": the table should be\n${metricsTable()}`);
});
