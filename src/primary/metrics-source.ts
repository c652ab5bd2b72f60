/**
 * What the metrics are made of, as the primary sees it: the scoreboard (no worker is asked), the kernel's counts, and
 * the answers of workers whose services have metrics of their own, which get USER_MS to come.
 */
import type { Metrics, Rendered } from "../admin/metrics.ts";
import type { MetricsReading, ProcessFigures, QueueFigures } from "../admin/metrics-reading.ts";
import type { AskedWorker } from "../admin/user-metrics.ts";
import type { Logger } from "../base/log.ts";
import type { ListenerConfig } from "../config/config.ts";
import type { MetricsSnapshot } from "../control/metrics-snapshot.ts";
import { WORKER_STATES } from "../control/status.ts";
import { addon } from "../os/addon.ts";
import { readListenLosses, readSocketCounts } from "../os/socket-counts.ts";
import type { Primary } from "./primary.ts";
import { ProcessCounts } from "./process-counts.ts";
import type { Slots } from "./slots.ts";

/** For a worker's answer. */
const USER_MS = 500;

/** What others know. */
export interface MetricsParts {
  readonly version: string;
  readonly log: Logger;
  ready(): boolean;
  /** Requests to the admin server without the right token, so far. */
  unauthorized(): number;
  /** Lines of the log that nobody took in time, so far. */
  logLinesDropped(): number;
}

const LIVING = WORKER_STATES.filter((state) => state !== "dead");

const udp = ({ address }: ListenerConfig): boolean => address.protocol === "udp";

/** Of every listening socket; slots may share one, and it is told once. */
function queuesOf(slots: Slots, listeners: readonly ListenerConfig[]): QueueFigures[] {
  const seen = new Set<unknown>();
  return listeners
    .filter((listener) => !udp(listener))
    .flatMap((listener) =>
      slots.indices.flatMap((slot) => {
        if (!slots.has(slot, listener)) return [];
        const fd = slots.socket(slot, listener);
        const cookie = addon().socketCookie(fd);
        if (seen.has(cookie)) return [];
        seen.add(cookie);
        const [length, limit] = [addon().socketQueue(fd), addon().socketQueueLimit(fd)];
        return length < 0 || limit < 0 ? [] : [{ slot, listener: listener.name, length, limit }];
      }),
    );
}

/** The workers' own counts of their descriptors stand in the scoreboard. */
function withDescriptors(
  processes: readonly ProcessFigures[],
  { workers }: Pick<MetricsSnapshot, "workers">,
): ProcessFigures[] {
  return processes.map((figures) => {
    const worker = workers.find(({ slot, pid }) => String(slot) === figures.process && pid > 0);
    return worker ? { ...figures, openFds: worker.openFds } : figures;
  });
}

/**
 * Renders the metrics of a server, each time it is called. What that takes (prom-client: 30 ms, 11 MiB) is loaded at
 * once where there is an admin server, by a primary that runs the files it was started with; else when somebody asks.
 */
export function openMetrics(primary: Primary, parts: MetricsParts): () => Promise<Rendered> {
  const { crew, certificates } = primary;
  const processes = new ProcessCounts(() => crew.all);

  const workers = (): AskedWorker[] =>
    crew.all
      .filter(({ state }) => state !== "starting" && state !== "dead")
      .map((worker) => ({ process: worker, ask: () => worker.ask("userMetrics", {}, USER_MS) }));

  const read = async (): Promise<MetricsReading> => {
    const [counted, listenLosses, sockets] = await Promise.all([
      processes.read(),
      readListenLosses(),
      readSocketCounts(),
    ]);
    const { config, startedAt, health, configVersion } = primary;
    const snapshot = crew.snapshot(config.listeners);
    const expiries = certificates.status(config).map(({ listener, certificates: all }) => {
      return [listener, Math.min(...all.map(({ notAfter }) => Date.parse(notAfter)))] as const;
    });
    return {
      snapshot,
      server: {
        version: parts.version,
        node: process.version,
        generation: crew.generation,
        configVersion,
        upSeconds: (Date.now() - startedAt) / 1000,
        healthy: health === "ok",
        ready: parts.ready(),
        connectionsMax: config.connections,
        workers: Object.fromEntries(LIVING.map((state) => [state, snapshot.server.processes[state] ?? 0])),
      },
      processes: withDescriptors(counted, snapshot),
      queues: queuesOf(crew.slots, config.listeners),
      listenLosses,
      sockets,
      overflows: Object.fromEntries(
        config.listeners.filter(udp).map((listener) => [listener.name, crew.slots.overflow(listener)]),
      ),
      certificates: Object.fromEntries(expiries),
      unauthorized: parts.unauthorized(),
      logLinesDropped: parts.logLinesDropped(),
    };
  };

  let metrics: Promise<Metrics> | undefined;
  const load = (): Promise<Metrics> => {
    metrics ??= import("../admin/metrics.ts").then(
      ({ Metrics }) => new Metrics({ read, workers, warn: (message) => parts.log.warn(message) }),
    );
    return metrics;
  };
  // Should it fail, whoever asks hears of it.
  if (primary.config.admin) load().catch(() => {});
  return async () => (await load()).render();
}
