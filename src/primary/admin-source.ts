/**
 * The primary as the admin server and the control socket see it: every question that they answer, in one place, so that
 * both answer alike. Ends with the process, or when the next generation answers.
 */
import type { AdminSource, Readiness } from "../admin/source.ts";
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Inspector } from "../control/inspection.ts";
import { killConnection, lastClosed, listConnections } from "./inspection.ts";
import { openMetrics } from "./metrics-source.ts";
import type { Primary } from "./primary.ts";
import { Profiling } from "./profiling.ts";
import { type ServerIdentity, serverStatus } from "./status.ts";

export interface AdminDeskOptions {
  readonly primary: Primary;
  readonly log: Logger;
  readonly identity: ServerIdentity;
}

function readinessOf({ state, health, departing }: Primary): Readiness {
  if (state === "starting") return { ready: false, reason: "starting" };
  if (state === "stopping" || departing) return { ready: false, reason: "draining" };
  if (health !== "ok") return { ready: false, reason: health };
  return { ready: true, reason: "ready" };
}

export class AdminDesk {
  /** For the control socket. */
  readonly inspection: Inspector;
  /** For the admin server. */
  readonly source: AdminSource;
  /** Requests to the admin server without the right token. */
  unauthorized = 0;
  readonly #ending: AbortController = new AbortController();
  readonly #profiling: Profiling;

  constructor({ primary, log, identity }: AdminDeskOptions) {
    const metrics = openMetrics(primary, {
      version: identity.version,
      log,
      ready: () => readinessOf(primary).ready,
      unauthorized: () => this.unauthorized,
    });
    const profiling = new Profiling(primary.crew, identity.control, primary.stopSignal);
    this.#profiling = profiling;
    this.inspection = {
      connections: (query) => listConnections(primary, query, identity.predecessor()),
      kill: async (id) => {
        await killConnection(primary, id, identity.predecessor());
        log.info({ connection: id }, "connection reset: asked by an administrator");
      },
      closed: async (limit) => lastClosed(primary, limit),
      profile: (request, signal) => {
        log.info(request, `profile (${request.kind}) asked for`);
        return profiling.take(request, signal);
      },
      logLevel: () => primary.logLevel,
      setLogLevel: async (level) => {
        await primary.setLogLevel(level);
      },
      metrics,
    };
    this.source = {
      ...this.inspection,
      ending: this.#ending.signal,
      status: () => serverStatus(primary, identity),
      snapshot: () => primary.crew.snapshot(primary.config.listeners),
      readiness: () => readinessOf(primary),
      profile: (request, signal) => {
        if (primary.config.admin?.profiles !== false) return this.inspection.profile(request, signal);
        return Promise.reject(new HeadraceError("control-refused", "profiles are switched off (admin.profiles)"));
      },
      unauthorized: () => {
        this.unauthorized += 1;
      },
    };
  }

  /** Streams end. Idempotent. Resolves when the last profile is over, which a stop has ended. */
  end(): Promise<void> {
    this.#ending.abort();
    return this.#profiling.idle();
  }
}
