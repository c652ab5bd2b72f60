/** Metrics of the server as a whole, and of what only the kernel knows about its sockets. */
import { counter, type Family, gauge } from "./family.ts";
import type { QueueFigures, ScrapeReading, ServerFigures } from "./metrics-reading.ts";

const NONE: readonly string[] = [];

const ofServer =
  (figureOf: (server: ServerFigures) => number) =>
  ({ server }: ScrapeReading): [number][] => [[figureOf(server)]];

/** One value, or none where the kernel did not tell. */
const known = (value: number | undefined): [number][] => (value === undefined ? [] : [[value]]);

const ofQueues =
  (field: "length" | "limit") =>
  ({ queues }: ScrapeReading): [string, string, number][] =>
    queues.map((queue: QueueFigures) => [String(queue.slot), queue.listener, queue[field]]);

export const SERVER_FAMILIES: readonly Family[] = [
  gauge(
    "up_seconds",
    "Since this primary started",
    NONE,
    ofServer(({ upSeconds }) => upSeconds),
  ),
  gauge(
    "healthy",
    "1, or 0 while it is degraded: no worker accepts",
    NONE,
    ofServer(({ healthy }) => Number(healthy)),
  ),
  gauge(
    "ready",
    "1, or 0 while it starts, stops or is degraded",
    NONE,
    ofServer(({ ready }) => Number(ready)),
  ),
  gauge("workers", "Worker processes, by state", ["state"], ({ server }) => Object.entries(server.workers)),
  gauge(
    "generation",
    "Of the primary: 1, and one more with each upgrade",
    NONE,
    ofServer(({ generation }) => generation),
  ),
  gauge(
    "configuration_version",
    "1, and one more with each reload that changed something",
    NONE,
    ofServer(({ configVersion }) => configVersion),
  ),
  gauge(
    "connections_limit",
    "Connections that the whole server may have (limits.connections)",
    NONE,
    ofServer(({ connectionsMax }) => connectionsMax),
  ),
  gauge("listen_queue_length", "Connections that wait to be accepted", ["worker", "listener"], ofQueues("length")),
  gauge("listen_queue_limit", "Connections that can wait to be accepted", ["worker", "listener"], ofQueues("limit")),
  counter(
    "listen_overflows_total",
    "Of the network namespace: connections lost because an accept queue was full (TcpExt ListenOverflows)",
    NONE,
    ({ listenLosses }) => known(listenLosses?.overflows),
  ),
  counter(
    "listen_drops_total",
    "Of the network namespace: connections lost before accept, for any reason (TcpExt ListenDrops)",
    NONE,
    ({ listenLosses }) => known(listenLosses?.drops),
  ),
  gauge("sockets_time_wait", "Of the network namespace: TCP sockets in TIME_WAIT", NONE, ({ sockets }) =>
    known(sockets?.timeWait),
  ),
  gauge("sockets_in_use", "Of the network namespace: TCP sockets in use", NONE, ({ sockets }) => known(sockets?.inUse)),
  gauge("sockets_orphaned", "Of the network namespace: TCP sockets that no process has any more", NONE, ({ sockets }) =>
    known(sockets?.orphaned),
  ),
  gauge(
    "tls_certificate_expiry_seconds",
    "When the first certificate of a listener ends, in Unix time",
    ["listener"],
    ({ certificates }) => Object.entries(certificates).map(([listener, ms]) => [listener, ms / 1000]),
  ),
  counter(
    "admin_unauthorized_total",
    "Requests to the admin server without the right token",
    NONE,
    ({ unauthorized }) => [[unauthorized]],
  ),
  counter("log_lines_dropped_total", "Log lines lost because nobody read them in time", NONE, ({ logLinesDropped }) => [
    [logLinesDropped],
  ]),
  gauge(
    "scrape_incomplete",
    "Workers that did not say in time what their service's own metrics are",
    NONE,
    ({ user }) => [[user.unanswered]],
  ),
  gauge(
    "user_metrics_left_out",
    "Metrics of services that are left out: named headrace_…, or too many series",
    NONE,
    ({ user }) => [[user.leftOut]],
  ),
  gauge("build_info", "1", ["version", "node"], ({ server: { version, node } }) => [[version, node, 1]]),
];
