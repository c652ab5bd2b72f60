/**
 * A worker's life: it does what the primary says, one order after the other, and reports. When it cannot go on it
 * says why and ends; being replaced is the primary's business. When the primary has gone it stops by itself.
 */
import { closeSync } from "node:fs";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { closeLog, createLogger, type Logger } from "../base/log.ts";
import type { Config } from "../config/config.ts";
import {
  type FromWorker,
  type StartOrder,
  type ToWorker,
  WORKER_FDS,
  type WorkerFailure,
} from "../control/worker-messages.ts";
import { addon } from "../os/addon.ts";
import { check } from "../os/errno.ts";
import { Scoreboard, type WorkerBlock } from "../os/scoreboard.ts";
import { loadService } from "./load-service.ts";
import { openServer, type ServedListener, type WorkerServer } from "./server.ts";
import { bindSockets, closeSockets, takeSockets } from "./sockets.ts";

/** How long a worker without a primary goes on answering what is in flight. */
const ORPHAN_DRAIN_MS = 5_000;
const ORPHAN_GRACE_MS = 500;

/** Resolves when the message is with the kernel: what was said before exit() is not lost. */
function report(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected && process.send) process.send(message, () => resolve());
    else resolve();
  });
}

function failureOf(error: unknown): WorkerFailure {
  const { code, fields } = error instanceof HeadraceError ? error : { code: "worker-failed" as const, fields: {} };
  const origin = error instanceof HeadraceError ? error.cause : error;
  const stack = origin instanceof Error && origin.stack ? { stack: origin.stack } : {};
  const message = error instanceof HeadraceError ? error.message : `failed: ${messageOf(error)}`;
  return { type: "failed", code, message, fields, ...stack };
}

class Worker {
  #config: Config | undefined;
  #log: Logger | undefined;
  #block: WorkerBlock | undefined;
  #server: WorkerServer | undefined;
  #sockets: readonly number[] = [];
  #stopping = false;

  async obey(order: ToWorker<Config>): Promise<void> {
    try {
      await this.#carryOut(order);
    } catch (error) {
      await this.#fail(failureOf(error));
    }
  }

  /** A bug, in this program or in the service's code. The state is unknown, so nothing is drained. */
  async crash(error: unknown): Promise<void> {
    // First of all and at once: the round in which it happened is lost, and serving on with half of it would give
    // clients each other's bytes.
    this.#server?.abort();
    this.#log?.fatal({ err: error }, `worker crashed: ${messageOf(error)}`);
    await this.#fail({ type: "failed", code: "worker-failed", message: `crashed: ${messageOf(error)}`, fields: {} });
  }

  /** The primary has died: nobody will replace this worker or stop it. */
  orphaned(): void {
    setTimeout(() => process.exit(1), ORPHAN_DRAIN_MS + ORPHAN_GRACE_MS);
    this.#log?.error("the primary has gone: stopping");
    if (!this.#server) process.exit(1);
    void this.#stop(Math.min(ORPHAN_DRAIN_MS, this.#config?.drainMs ?? 0));
  }

  async #carryOut(order: ToWorker<Config>): Promise<void> {
    const listeners = this.#config?.listeners ?? [];
    switch (order.type) {
      case "start":
        await this.#start(order);
        return report({ type: "loaded" });
      case "bind": {
        const bound = bindSockets(listeners, order.ports, order.exclusive);
        if ("errno" in bound) {
          const { errno, listener } = bound;
          return this.#fail({ type: "failed", code: "system", message: `bind: ${errno}`, fields: { errno }, listener });
        }
        this.#sockets = bound;
        return report({ type: "bound" });
      }
      case "take":
        this.#sockets = takeSockets(listeners.length);
        return report({ type: "bound" });
      case "accept":
        this.#server?.accept(this.#sockets);
        this.#block?.set("startedAt", Date.now());
        return report({ type: "accepting" });
      case "stop":
        return this.#stop(order.drainMs);
      case "abort":
        return this.#abort();
    }
  }

  async #start({ worker, config, pretty }: StartOrder<Config>): Promise<void> {
    process.title = `headrace worker ${worker}`;
    this.#config = config;
    this.#log = createLogger({ level: config.logLevel, worker, pretty });
    const shape = { workers: config.workers, listeners: config.listeners.length };
    const scoreboard = Scoreboard.attach(shape, WORKER_FDS.scoreboard);
    closeSync(WORKER_FDS.scoreboard);
    this.#block = scoreboard.block(worker);
    this.#block.set("pid", process.pid);
    const listeners: ServedListener[] = [];
    // The sockets come later, with `bind` or `take`: whatever can fail before there are clients should.
    for (const listener of config.listeners) {
      listeners.push({ config: listener, service: await loadService(listener.service) });
    }
    this.#server = await openServer({ listeners, scoreboard, worker, connections: config.connections, log: this.#log });
  }

  async #stop(drainMs: number): Promise<void> {
    if (this.#stopping || !this.#server) return;
    this.#stopping = true;
    // Accepting ends before stop() returns its promise; the sockets close in the same turn, so that no client
    // gets into a queue that nobody will look at again.
    const stopped = this.#server.stop({ drainMs });
    closeSockets(this.#sockets);
    const { closed, forced } = await stopped;
    await report({ type: "stopped", closed, forced });
    await this.#leave(0);
  }

  async #abort(): Promise<void> {
    const forced = this.#block?.sum("active") ?? 0;
    this.#server?.abort();
    await report({ type: "stopped", closed: 0, forced });
    await this.#leave(0);
  }

  async #fail(failure: WorkerFailure): Promise<void> {
    await report(failure);
    await this.#leave(1);
  }

  async #leave(code: number): Promise<never> {
    if (this.#log) await closeLog(this.#log);
    process.exit(code);
  }
}

/** Waits for orders. */
export function runWorker(): void {
  // Should this event loop stand still when the primary goes, nothing here would ever notice.
  check(addon().exitWithPeer(WORKER_FDS.channel, ORPHAN_DRAIN_MS + 2 * ORPHAN_GRACE_MS), "watching the primary");
  const worker = new Worker();
  process.on("uncaughtException", (error) => void worker.crash(error));
  process.on("message", (order) => void worker.obey(order as ToWorker<Config>));
  process.once("disconnect", () => worker.orphaned());
  if (!process.connected) worker.orphaned();
}
