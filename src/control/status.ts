/** What `status` answers: plain figures, units in the names. Made in src/primary, printed in src/cli. */
import type { CloseReason, RejectReason } from "../base/reasons.ts";

export type PrimaryState = "starting" | "running" | "reloading" | "upgrading" | "scaling" | "stopping";

/** degraded: it serves, and something is wrong that somebody should look at. */
export type Health = "ok" | "degraded";

/** Where a worker stands on its way; in this order, and never back. retired: accepts nothing, gives connections away. */
export const WORKER_STATES = ["starting", "loaded", "bound", "accepting", "retired", "stopping", "dead"] as const;
export type WorkerState = (typeof WORKER_STATES)[number];

/** Counted since the server started, over all workers that ever were. `open` and what is held are now. */
export interface Traffic {
  readonly open: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly requests: number;
  /** Requests that were refused because of overload. They count among `requests` too. */
  readonly shed: number;
  /** Requests that were not done in time: ended by a `DeadlineExceeded`, their own or that of what they waited for. */
  readonly late: number;
  /** Requests that their clients withdrew. */
  readonly cancelled: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** Buffers now: received and not used yet, or replies that wait for their turn. */
  readonly bytesHeldIn: number;
  /** Buffers now: of unsent bytes. */
  readonly bytesHeldOut: number;
  /** Messages published to topics. */
  readonly published: number;
  /** Messages of topics that did not get to a subscriber that was too slow, or to a whole worker. */
  readonly dropped: number;
}

/** Of a listener for datagrams. What was not handed to the service, or not sent, is counted by reason. */
export interface DatagramStatus {
  readonly received: number;
  readonly sent: number;
  /** Dropped by the kernel, because the receive buffer was full. */
  readonly overflow: number;
  /** Arrived, longer than `limits.datagram`. */
  readonly truncated: number;
  /** By `admission`. */
  readonly denied: number;
  /** By `limits.datagramRate`. */
  readonly limited: number;
  /** To be sent, longer than `limits.datagram`. */
  readonly oversized: number;
  /** To be sent, more than `limits.amplification` allows. */
  readonly unverified: number;
  /** Not taken by the kernel at first: tried once more. */
  readonly retried: number;
  /** Not taken the second time either. */
  readonly dropped: number;
  /** Refused by the kernel for another reason, or made when the worker sent no more. */
  readonly failed: number;
  /** Handlers that failed, or were late. */
  readonly errors: number;
}

export interface ListenerStatus {
  readonly name: string;
  readonly address: string;
  readonly service: string;
  readonly open: number;
  /** Accepted, and not served yet: before the end of the PROXY header. */
  readonly prefaces: number;
  readonly opened: number;
  readonly requests: number;
  readonly shed: number;
  /** Of TLS: those that came to an end, and how many of them by a session of before. */
  readonly handshakes: number;
  readonly resumed: number;
  /** Absent where connections are served. */
  readonly datagrams?: DatagramStatus;
}

/** Figures of one process; `undefined` where /proc did not tell. */
export interface ProcessUsage {
  readonly cpuPercent?: number;
  readonly memoryBytes?: number;
}

/** Counted since this worker process started. */
export interface WorkerStatus extends Traffic, ProcessUsage {
  readonly index: number;
  /** Whose sockets it serves. */
  readonly slot: number;
  /** Connections that came from another worker. */
  readonly movedIn: number;
  /** Connections that went to another worker. */
  readonly movedOut: number;
  /** Tasks that wait for a thread. */
  readonly waiting: number;
  readonly pid: number;
  readonly state: WorkerState;
  /** How often a worker of this index was replaced. */
  readonly restarts: number;
}

/** What can be done to a server while it runs; also the names of the requests for it. */
export type ChangeKind = "reload" | "upgrade" | "scale" | "drain";

/** The last change, or the one that goes on. */
export interface ChangeStatus {
  readonly kind: ChangeKind;
  readonly outcome: "running" | "done" | "failed";
  /** For people: "reloaded: configuration 3, …", "reload failed: …", "upgrade began". */
  readonly message: string;
  /** ISO 8601: when it ended, or began while it runs. */
  readonly at: string;
}

/** The certificates of a listener. */
export interface TlsStatus {
  readonly listener: string;
  /** The first is for clients that name no server. */
  readonly certificates: readonly {
    readonly file: string;
    readonly names: readonly string[];
    /** ISO 8601. */
    readonly notAfter: string;
  }[];
  /** ISO 8601. */
  readonly loadedAt: string;
  /** Why what is in the files now is not used. */
  readonly problem?: { readonly message: string; readonly at: string };
}

/** A process that accepts nothing any more and ends with its last connection, or at the drain deadline. */
export interface DrainingStatus {
  readonly pid: number;
  readonly generation: number;
  /** Its connections. */
  readonly open: number;
  /** ISO 8601. */
  readonly since: string;
}

export interface ServerStatus extends ProcessUsage {
  readonly pid: number;
  readonly version: string;
  readonly state: PrimaryState;
  readonly health: Health;
  /** 1, and one more with each upgrade. */
  readonly generation: number;
  /** 1, and one more with each reload that changed something. */
  readonly configVersion: number;
  /** Absent while nothing was changed. */
  readonly lastChange?: ChangeStatus;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly uptimeMs: number;
  readonly control: string;
  /** Address of the admin server. Absent while there is none. */
  readonly admin?: string;
  /** Where the configuration came from. */
  readonly source: string;
  readonly listeners: readonly ListenerStatus[];
  /** Of the listeners that have TLS. */
  readonly tls: readonly TlsStatus[];
  /** Sockets per listener; the kernel spreads newcomers over them. */
  readonly slots: number;
  readonly workers: readonly WorkerStatus[];
  /** Replaced workers, and those of the generation before. */
  readonly draining: readonly DrainingStatus[];
  readonly totals: Traffic & { readonly restarts: number };
  /**
   * Connections that began, less those that ended and those that are there. Not 0 for longer than a moment: a bug in
   * the counting, or a connection that is lost sight of.
   */
  readonly unaccounted: number;
  readonly closes: Readonly<Record<CloseReason, number>>;
  /** Newcomers who were turned away. */
  readonly rejections: Readonly<Record<RejectReason, number>>;
}
