/**
 * Metrics of connections, requests and datagrams, from the listeners' rows of the scoreboard. Where workers times
 * listeners are too many to tell apart, the workers of a listener are told together, as `worker="all"`: no server
 * makes more series than a Prometheus likes to see.
 */
import { DURATION_BUCKETS, DURATION_BUCKETS_S } from "../base/buckets.ts";
import { CLOSE_REASONS, type CloseReason, REJECT_REASONS } from "../base/reasons.ts";
import type { ListenerMetrics } from "../control/metrics-snapshot.ts";
import { DATAGRAM_FIELDS } from "../os/scoreboard.ts";
import { counter, type Family, gauge, PREFIX, type Sample } from "./family.ts";
import type { ScrapeReading } from "./metrics-reading.ts";

/** Pairs of worker and listener at most that have series of their own: about 30 each. */
export const PAIRS_MAX = 512;

type Counted = Exclude<keyof ListenerMetrics, "slot" | "listener" | "closed" | "duration" | "datagrams">;
type Row = Readonly<Record<Counted, number>> & {
  readonly worker: string;
  readonly listener: string;
  readonly duration: ListenerMetrics["duration"];
};

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

/** By name of the deadline: the reason of the closes that it has caused. */
const DEADLINES: Readonly<Record<string, CloseReason>> = {
  first_byte: "first-byte-timeout",
  frame: "frame-timeout",
  idle: "idle-timeout",
  write_stall: "write-stall",
  handshake: "handshake-timeout",
  proxy_header: "proxy-header-timeout",
  age: "max-age",
  heartbeat: "heartbeat-missed",
};

const ofConnections = ({ snapshot }: ScrapeReading): ListenerMetrics[] =>
  snapshot.listeners.filter(({ datagrams }) => datagrams === undefined);

/** Sums what `listeners` say of `figureOf`, by listener, in the order in which they come. */
function byListener(
  listeners: readonly ListenerMetrics[],
  figureOf: (row: ListenerMetrics) => number,
): (readonly [string, number])[] {
  const sums = new Map<string, number>();
  for (const row of listeners) sums.set(row.listener, (sums.get(row.listener) ?? 0) + figureOf(row));
  return [...sums];
}

function merged(rows: readonly ListenerMetrics[]): Row {
  const listener = rows[0]?.listener ?? "";
  const counts = COUNTED.map((field) => [field, rows.reduce((sum, row) => sum + row[field], 0)]);
  const buckets = Array.from({ length: DURATION_BUCKETS }, (_, index) =>
    rows.reduce((sum, { duration }) => sum + (duration.buckets[index] ?? 0), 0),
  );
  const sum = rows.reduce((total, { duration }) => total + duration.sum, 0);
  return {
    ...(Object.fromEntries(counts) as Record<Counted, number>),
    worker: "all",
    listener,
    duration: { buckets, sum },
  };
}

/** For each worker and listener, or for each listener alone. */
function rowsOf(reading: ScrapeReading): Row[] {
  const rows = ofConnections(reading);
  if (rows.length <= PAIRS_MAX) return rows.map((row) => ({ ...row, worker: String(row.slot) }));
  const names = [...new Set(rows.map(({ listener }) => listener))];
  return names.map((name) => merged(rows.filter(({ listener }) => listener === name)));
}

const PAIR = ["worker", "listener"] as const;
const ofPairs =
  (field: Counted) =>
  (reading: ScrapeReading): [string, string, number][] =>
    rowsOf(reading).map((row) => [row.worker, row.listener, row[field]]);

/** In the form of Prometheus: each bucket counts what the smaller ones count, too. */
function histogram({ worker, listener, duration }: Row): Sample[] {
  const labels = { worker, listener };
  let count = 0;
  const buckets = [...DURATION_BUCKETS_S.map(String), "+Inf"].map((le, index) => {
    count += duration.buckets[index] ?? 0;
    return { suffix: "_bucket", labels: { ...labels, le }, value: count };
  });
  return [...buckets, { suffix: "_sum", labels, value: duration.sum }, { suffix: "_count", labels, value: count }];
}

export const TRAFFIC_FAMILIES: readonly Family[] = [
  gauge("active_connections", "Connections that a service has now", PAIR, ofPairs("active")),
  gauge(
    "connections_opening",
    "Connections accepted and not with their service yet: before the end of a PROXY header or TLS handshake",
    PAIR,
    ofPairs("prefaces"),
  ),
  counter("connections_accepted_total", "Connections accepted", PAIR, ofPairs("accepted")),
  counter("connections_closed_total", "Connections that ended, by reason", ["listener", "reason"], (reading) =>
    CLOSE_REASONS.flatMap((reason) =>
      byListener(ofConnections(reading), ({ closed }) => closed[reason]).map(
        ([listener, count]) => [listener, reason, count] as const,
      ),
    ),
  ),
  counter("connections_rejected_total", "Newcomers turned away, by reason", ["reason"], ({ snapshot }) =>
    REJECT_REASONS.map((reason) => [reason, snapshot.workers.reduce((sum, { rejected }) => sum + rejected[reason], 0)]),
  ),
  counter("deadline_timeouts_total", "Deadlines that passed, by which", ["listener", "deadline"], (reading) => {
    const rows = ofConnections(reading);
    const closes = Object.entries(DEADLINES).flatMap(([deadline, reason]) =>
      byListener(rows, ({ closed }) => closed[reason]).map(([listener, count]) => [listener, deadline, count] as const),
    );
    const requests = byListener(rows, ({ late }) => late);
    return [...closes, ...requests.map(([listener, count]) => [listener, "request", count] as const)];
  }),
  counter("requests_total", "Requests, refused ones included", PAIR, ofPairs("requests")),
  counter("requests_shed_total", "Requests refused because of overload", PAIR, ofPairs("shed")),
  counter("requests_late_total", "Requests not done within their deadline", PAIR, ofPairs("late")),
  counter("requests_cancelled_total", "Requests withdrawn by their clients", PAIR, ofPairs("cancelled")),
  gauge("requests_in_flight", "Requests whose handler has not finished", PAIR, ofPairs("inFlight")),
  {
    name: `${PREFIX}request_duration_seconds`,
    type: "histogram",
    help: "Time from a whole request to its reply",
    labels: PAIR,
    samples: (reading) => rowsOf(reading).flatMap(histogram),
  },
  counter(
    "tls_handshakes_total",
    "TLS handshakes that came to an end, by whether a session was resumed",
    ["listener", "resumed"],
    (reading) => {
      const rows = ofConnections(reading).filter(({ listener }) => listener in reading.certificates);
      return [
        ...byListener(rows, ({ resumed }) => resumed).map(([listener, count]) => [listener, "yes", count] as const),
        ...byListener(rows, ({ handshakes, resumed }) => handshakes - resumed).map(
          ([listener, count]) => [listener, "no", count] as const,
        ),
      ];
    },
  ),
  counter("datagrams_total", "Datagrams by what became of them", ["listener", "outcome"], ({ snapshot, overflows }) => {
    const rows = snapshot.listeners.filter(({ datagrams }) => datagrams !== undefined);
    const counted = DATAGRAM_FIELDS.flatMap((outcome) =>
      byListener(rows, ({ datagrams }) => datagrams?.[outcome] ?? 0).map(
        ([listener, count]) => [listener, outcome, count] as const,
      ),
    );
    const overflown = Object.entries(overflows).map(([listener, count]) => [listener, "overflow", count] as const);
    return [...counted, ...overflown];
  }),
  counter(
    "topic_messages_total",
    "Messages of topics: published, and lost by who was too slow",
    ["outcome"],
    ({ snapshot }) =>
      (["published", "dropped"] as const).map((outcome) => [
        outcome,
        snapshot.workers.reduce((sum, worker) => sum + worker[outcome], 0),
      ]),
  ),
];
