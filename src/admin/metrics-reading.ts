/** What one scrape is made of, read at one moment by the primary (src/primary/metrics-source.ts). */
import type { MetricsSnapshot } from "../control/metrics-snapshot.ts";
import type { ListenLosses, SocketCounts } from "../os/socket-counts.ts";

/** Of the primary ("primary"), or of the processes of a slot. */
export interface ProcessFigures {
  readonly process: string;
  /** Never goes back. */
  readonly cpuSeconds?: number;
  readonly memoryBytes?: number;
  readonly openFds?: number;
  readonly maxFds?: number;
}

/** Of the accept queue of a listening socket. */
export interface QueueFigures {
  readonly slot: number;
  readonly listener: string;
  readonly length: number;
  readonly limit: number;
}

export interface ServerFigures {
  readonly version: string;
  readonly node: string;
  readonly generation: number;
  readonly configVersion: number;
  readonly upSeconds: number;
  readonly healthy: boolean;
  readonly ready: boolean;
  /** Connections that the whole server may have. */
  readonly connectionsMax: number;
  /** Processes by state. */
  readonly workers: Readonly<Record<string, number>>;
}

export interface MetricsReading {
  readonly snapshot: MetricsSnapshot;
  readonly server: ServerFigures;
  readonly processes: readonly ProcessFigures[];
  readonly queues: readonly QueueFigures[];
  readonly listenLosses: ListenLosses | undefined;
  readonly sockets: SocketCounts | undefined;
  /** Datagrams that the kernel dropped, by listener. */
  readonly overflows: Readonly<Record<string, number>>;
  /** By listener: ms since the epoch at which the first of its certificates ends. */
  readonly certificates: Readonly<Record<string, number>>;
  /** Requests to the admin server without the right token. */
  readonly unauthorized: number;
  /** Lines of the log that nobody took in time. */
  readonly logLinesDropped: number;
}

/** How it went with the services' own metrics. */
export interface UserFigures {
  /** Workers that did not answer in time: their gauges are missing, their counters are those of before. */
  readonly unanswered: number;
  /** Metrics that were left out: with a name of ours, or too many. */
  readonly leftOut: number;
}

export interface ScrapeReading extends MetricsReading {
  readonly user: UserFigures;
}
