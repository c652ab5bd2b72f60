/**
 * What the admin server shows and does, as functions: the primary makes them (src/primary/admin-source.ts), so that
 * nothing here knows how they come about. Each rejects with a HeadraceError: `busy` (ask again), `not-found`,
 * `change-refused` (asked wrongly), anything else is a failure.
 */
import type { Readable } from "node:stream";
import type { LogLevel } from "../base/settings.ts";
import type { ClosedConnection, ConnectionPage, ConnectionQuery, ProfileRequest } from "../control/inspection.ts";
import type { MetricsSnapshot } from "../control/metrics-snapshot.ts";
import type { ServerStatus } from "../control/status.ts";

export interface Readiness {
  readonly ready: boolean;
  /** One word: "ready", or why not: "starting", "draining", "degraded". */
  readonly reason: string;
}

/** A text of Prometheus, or of OpenMetrics. */
export interface MetricsText {
  readonly contentType: string;
  readonly body: string;
}

/** A profile that was taken; `content` has to be read or destroyed. */
export interface ProfileFile {
  readonly name: string;
  readonly bytes: number;
  readonly content: Readable;
}

export interface AdminSource {
  /** Aborted when this process answers no more: streams end then, and clients find the next generation. */
  readonly ending: AbortSignal;
  status(): Promise<ServerStatus>;
  /** All counters, now. */
  snapshot(): MetricsSnapshot;
  readiness(): Readiness;
  metrics(): Promise<MetricsText>;
  connections(query: ConnectionQuery): Promise<ConnectionPage>;
  /** Resets a connection. Rejects with `not-found` when there is none of this id. */
  kill(id: string): Promise<void>;
  /** The last ones first. */
  closed(limit: number): Promise<readonly ClosedConnection[]>;
  /** One at a time, else `busy`. Aborting ends it early. */
  profile(request: ProfileRequest, signal: AbortSignal): Promise<ProfileFile>;
  logLevel(): LogLevel;
  /** In the primary and all workers, until the next reload. */
  setLogLevel(level: LogLevel): Promise<void>;
  /** A request came without the token, or with a wrong one. */
  unauthorized(): void;
}
