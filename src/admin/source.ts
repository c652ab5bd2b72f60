/**
 * What the admin server shows and does, as functions: the primary makes them (src/primary/admin-source.ts), so that
 * nothing here knows how they come about.
 */
import type { Inspector } from "../control/inspection.ts";
import type { MetricsSnapshot } from "../control/metrics-snapshot.ts";
import type { ServerStatus } from "../control/status.ts";

export interface Readiness {
  readonly ready: boolean;
  /** One word: "ready", or why not: "starting", "draining", "degraded". */
  readonly reason: string;
}

export interface AdminSource extends Inspector {
  /** Aborted when this process answers no more: streams end then, and clients find the next generation. */
  readonly ending: AbortSignal;
  status(): Promise<ServerStatus>;
  /** All counters, now. */
  snapshot(): MetricsSnapshot;
  readiness(): Readiness;
  /** A request came without the token, or with a wrong one. */
  unauthorized(): void;
}
