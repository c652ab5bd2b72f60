/**
 * What can be asked about the connections of a running server, and what the answers are: by the admin server, over the
 * control socket, and (in part) of each worker. Plain data, units in the names, every list bounded.
 */
import type { Readable } from "node:stream";
import type { CloseReason } from "../base/reasons.ts";
import type { LogLevel } from "../base/settings.ts";

export const CONNECTION_SORTS = ["buffered", "idle", "age", "bytes"] as const;
/** Unsent bytes; time without a byte either way; time since accept; bytes both ways. */
export type ConnectionSort = (typeof CONNECTION_SORTS)[number];

export const SORT_ORDERS = ["desc", "asc"] as const;
export type SortOrder = (typeof SORT_ORDERS)[number];

/** Rows of one page, and how many may stand before it. */
export const CONNECTIONS_PAGE_MAX = 1_000;
export const CONNECTIONS_OFFSET_MAX = 10_000;
export const CONNECTIONS_PAGE = 100;
/** Closes that are remembered, of the whole server. */
export const CLOSED_MAX = 10_000;
export const CLOSED_PAGE = 100;
/** Seconds that a CPU profile may take. */
export const PROFILE_SECONDS_MAX = 60;
export const PROFILE_SECONDS = 10;

export interface ConnectionFilter {
  /** Client addresses: a network ("10.0.0.0/8"), an address, or the beginning of one ("10.0."). */
  readonly address?: string;
  /** Name of a listener. */
  readonly listener?: string;
  /** Slot of a worker. */
  readonly worker?: number;
}

export interface ConnectionQuery extends ConnectionFilter {
  readonly sort: ConnectionSort;
  readonly order: SortOrder;
  readonly limit: number;
  readonly offset: number;
}

/** `opening`: a PROXY header or a TLS handshake comes first. */
type ConnectionState = "opening" | "open" | "draining" | "moving";

export interface ConnectionRow {
  readonly id: string;
  readonly worker: number;
  readonly listener: string;
  /** The client: behind a proxy, the one that its header names. */
  readonly remote: string;
  /** The other end of the socket. */
  readonly peer: string;
  readonly state: ConnectionState;
  readonly ageMs: number;
  readonly idleMs: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly bufferedBytes: number;
  readonly inFlight: number;
  /** The kernel's smoothed round-trip time (TCP_INFO). */
  readonly rttMs?: number;
  /** Segments sent again since the connection began. */
  readonly retransmits?: number;
  /** Protocol version. */
  readonly tls?: string;
}

export interface ConnectionPage {
  /** Connections that fit the filter. */
  readonly total: number;
  readonly offset: number;
  readonly rows: readonly ConnectionRow[];
  /** Whose connections are not among the rows, each with why: workers that gave no answer, a generation that drains. */
  readonly missing: readonly string[];
}

/** A connection that has ended. */
export interface ClosedConnection {
  readonly id: string;
  readonly worker: number;
  readonly listener: string;
  readonly remote: string;
  readonly reason: CloseReason;
  readonly durationMs: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** ISO 8601. */
  readonly at: string;
}

/** What can be profiled: a worker by its slot, or the primary. */
export type ProfileTarget = number | "primary";
export type ProfileKind = "cpu" | "heap";

export interface ProfileRequest {
  readonly kind: ProfileKind;
  readonly target: ProfileTarget;
  /** Of a CPU profile. */
  readonly seconds: number;
}

/** A profile that was taken; `content` has to be read or destroyed. */
export interface TakenProfile {
  /** What to call its file. */
  readonly name: string;
  readonly bytes: number;
  readonly content: Readable;
}

/** A text of Prometheus, or of OpenMetrics. */
interface MetricsText {
  readonly contentType: string;
  readonly body: string;
}

/**
 * Who answers all this: the primary. Each rejects with a HeadraceError: `busy` (ask again), `not-found`,
 * `change-refused` (asked wrongly), anything else is a failure.
 */
export interface Inspector {
  connections(query: ConnectionQuery): Promise<ConnectionPage>;
  /** Resets a connection. Rejects with `not-found` when there is none of this id. */
  kill(id: string): Promise<void>;
  /** The last ones first. */
  closed(limit: number): Promise<readonly ClosedConnection[]>;
  /** One at a time, else `busy`. Aborting ends it early. */
  profile(request: ProfileRequest, signal: AbortSignal): Promise<TakenProfile>;
  logLevel(): LogLevel;
  /** In the primary and all workers, until the next reload. */
  setLogLevel(level: LogLevel): Promise<void>;
  metrics(): Promise<MetricsText>;
}
