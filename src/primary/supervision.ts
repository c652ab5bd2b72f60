/**
 * Keeps every slot owned: a worker that dies is replaced, at once or after a pause (backoff.ts), for as long as it
 * takes. Meanwhile its slot's sockets are open, here and in every other worker: clients queue in them until a sibling
 * or the replacement accepts. When no worker accepts the server is degraded: it stays up, and says so.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Logger } from "../base/log.ts";
import type { Health } from "../control/status.ts";
import { Backoff } from "./backoff.ts";
import type { Crew } from "./crew.ts";
import type { WorkerProcess } from "./worker-process.ts";

export interface SupervisionOptions {
  readonly crew: Crew;
  readonly log: Logger;
  /** The server stops: nobody is replaced any more. */
  readonly stopSignal: AbortSignal;
  readonly onHealth: (health: Health) => void;
}

export class Supervision {
  readonly #options: SupervisionOptions;
  readonly #backoffs = new Map<number, Backoff>();
  #health: Health = "ok";

  constructor(options: SupervisionOptions) {
    this.#options = options;
  }

  /** `degraded`: no worker accepts. */
  get health(): Health {
    return this.#health;
  }

  /** The owner of a slot has died. */
  replace(dead: WorkerProcess): void {
    const { slot, acceptingSince } = dead;
    const backoff = this.#backoffs.get(slot) ?? new Backoff();
    this.#backoffs.set(slot, backoff);
    backoff.ended(acceptingSince === undefined ? undefined : performance.now() - acceptingSince);
    this.#mourn(dead, backoff);
    void this.#revive(slot, backoff);
    this.#judgeHealth();
  }

  #mourn(dead: WorkerProcess, { failures }: Backoff): void {
    const error = dead.failure && dead.error();
    const reason = error && { reason: error.message, ...(error.cause ? { err: error.cause } : {}) };
    this.#options.log.error(
      { worker: dead.slot, workerPid: dead.pid, failures, ...reason },
      `worker ${dead.slot} ${dead.ending}; replacing it`,
    );
  }

  /** Until the slot has an owner again, which may be another's doing (a reload), or is no more. */
  async #revive(slot: number, backoff: Backoff): Promise<void> {
    const { crew, log, stopSignal } = this.#options;
    for (;;) {
      // A stop ends the pause.
      await pause(backoff.pauseMs(crew.accepting.length === 0), undefined, { signal: stopSignal }).catch(() => {});
      if (stopSignal.aborted || crew.ownerOf(slot) || slot >= crew.wanted) return;
      let worker: WorkerProcess | undefined;
      try {
        // What it is meant to run by now: a reload may have changed that meanwhile.
        worker = crew.hire(slot, crew.configOf(slot));
        crew.countRestart(slot);
        await crew.equip(worker);
        await crew.open(worker);
        if (crew.ownerOf(slot) || slot >= crew.wanted) {
          const { drainMs, tlsDrainMs } = worker.config;
          return void crew.dismiss(worker, { drainMs, tlsMs: tlsDrainMs, queued: false });
        }
        // A reload may have changed it in the meantime.
        const config = crew.configOf(slot);
        if (config !== worker.config) await crew.configure(worker, config);
        crew.install(worker);
        log.info({ worker: slot, workerPid: worker.pid }, `worker ${slot} was replaced`);
        this.#judgeHealth();
        return;
      } catch (err) {
        if (stopSignal.aborted) return;
        backoff.ended(undefined);
        if (!worker) {
          log.error({ worker: slot, err }, `worker ${slot} could not be started; trying again`);
          continue;
        }
        worker.kill();
        await worker.exited;
        this.#mourn(worker, backoff);
      }
    }
  }

  /** Says when the last accepting worker has gone, and when there is one again. */
  #judgeHealth(): void {
    const { crew, log, onHealth } = this.#options;
    const health: Health = crew.accepting.length > 0 ? "ok" : "degraded";
    if (health === this.#health) return;
    this.#health = health;
    if (health === "degraded") log.error("degraded: no worker accepts; clients wait until one does");
    else log.info("a worker accepts again");
    onHealth(health);
  }
}
