/** Metrics of connections, requests and datagrams, from the listeners' rows of the scoreboard. */
import { DURATION_BUCKETS_S } from "../base/buckets.ts";
import { CLOSE_REASONS, type CloseReason, REJECT_REASONS } from "../base/reasons.ts";
import { DATAGRAM_FIELDS } from "../os/scoreboard.ts";
import { counter, type Family, gauge, PREFIX, type Sample } from "./family.ts";
import { type Counted, listenerRows, type Row } from "./listener-rows.ts";
import type { ScrapeReading } from "./metrics-reading.ts";

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

const PAIR = ["worker", "listener"] as const;
const ofPairs =
  (field: Counted) =>
  ({ snapshot }: ScrapeReading): [string, string, number][] =>
    listenerRows(snapshot).rows.map((row) => [row.worker, row.listener, row[field]]);

type ByListener = readonly [listener: string, key: string, count: number];

/** For each listener, over its workers. */
const ofListeners = (
  { snapshot }: ScrapeReading,
  countsOf: (total: Row) => Readonly<Record<string, number>>,
): ByListener[] =>
  listenerRows(snapshot).totals.flatMap((total) =>
    Object.entries(countsOf(total)).map(([key, count]): ByListener => [total.listener, key, count]),
  );

const pick = (from: Readonly<Record<string, number>>, keys: Readonly<Record<string, string>>): Record<string, number> =>
  Object.fromEntries(Object.entries(keys).map(([name, key]) => [name, from[key] ?? 0]));

const CLOSES = Object.fromEntries(CLOSE_REASONS.map((reason) => [reason, reason]));
const OUTCOMES = Object.fromEntries(DATAGRAM_FIELDS.map((outcome) => [outcome, outcome]));

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
    ofListeners(reading, ({ closed }) => pick(closed, CLOSES)),
  ),
  counter("connections_rejected_total", "Newcomers turned away, by reason", ["reason"], ({ snapshot }) =>
    REJECT_REASONS.map((reason) => [reason, snapshot.workers.reduce((sum, { rejected }) => sum + rejected[reason], 0)]),
  ),
  counter("deadline_timeouts_total", "Deadlines that passed, by which", ["listener", "deadline"], (reading) =>
    ofListeners(reading, ({ closed, late }) => ({ ...pick(closed, DEADLINES), request: late })),
  ),
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
    samples: ({ snapshot }) => listenerRows(snapshot).rows.flatMap(histogram),
  },
  counter(
    "tls_handshakes_total",
    "TLS handshakes that came to an end, by whether a session was resumed",
    ["listener", "resumed"],
    (reading) =>
      ofListeners(
        reading,
        ({ listener, handshakes, resumed }): Record<string, number> =>
          listener in reading.certificates ? { yes: resumed, no: handshakes - resumed } : {},
      ),
  ),
  counter("datagrams_total", "Datagrams by what became of them", ["listener", "outcome"], ({ snapshot, overflows }) =>
    [...listenerRows(snapshot).datagrams].flatMap(([listener, counts]) =>
      Object.entries({ ...pick(counts, OUTCOMES), overflow: overflows[listener] ?? 0 }).map(
        ([outcome, count]): ByListener => [listener, outcome, count],
      ),
    ),
  ),
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
