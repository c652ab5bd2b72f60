/**
 * The primary's state machine. It starts the workers, keeps copies of their sockets, replaces those that die and
 * stops them; it never touches a client's bytes.
 *
 *   starting ── every worker accepts ──► running ── stop() ──► stopping ── every worker has ended ──► (done)
 *       └── a worker ends, or stop() ─────────────────────────────┘
 *
 * Start: all load their services; then they bind one after the other, because a socket's place in its
 * SO_REUSEPORT group is the order of listen(); then all accept. Nobody accepts before everybody can.
 * Stop: the primary closes its copies first. So each worker is the last holder of its sockets when it has
 * accepted what is queued and closes them: newcomers are refused at once instead of waiting for nobody.
 */
import { formatAddress } from "../base/address.ts";
import type { Logger } from "../base/log.ts";
import type { Config } from "../config/config.ts";
import type { PrimaryState } from "../control/status.ts";
import { Scoreboard } from "../os/scoreboard.ts";
import { Figures } from "./figures.ts";
import { Slots } from "./slots.ts";
import { WorkerProcess } from "./worker-process.ts";

/** A worker that died so soon after it began to accept, or before it accepted, is replaced after a pause: it would only die again. */
const EARLY_DEATH_MS = 1_000;
const RESPAWN_PAUSE_MS = 500;
/** Workers force what is open at the drain deadline; who is still there this much later is killed. */
const DRAIN_GRACE_MS = 1_000;
/** A fast stop resets connections and writes logs; who takes longer is killed. */
const ABORT_MS = 500;

export interface Stopped {
  /** Connections that ended by themselves or were ended in order. */
  readonly closed: number;
  /** Connections that were cut off. */
  readonly forced: number;
}

export interface PrimaryOptions {
  readonly config: Config;
  readonly log: Logger;
  /** Workers log for people. */
  readonly pretty: boolean;
}

export class Primary {
  readonly figures: Figures;
  readonly startedAt: number = Date.now();
  /** Settles when a stop is complete: no worker is left. */
  readonly stopped: Promise<Stopped>;
  readonly #config: Config;
  readonly #log: Logger;
  readonly #pretty: boolean;
  readonly #scoreboard: Scoreboard;
  readonly #slots: Slots;
  readonly #workers: WorkerProcess[] = [];
  readonly #restarts: number[];
  readonly #pauses: Set<NodeJS.Timeout> = new Set();
  #state: PrimaryState = "starting";
  #fast = false;
  #tally: { closed: number; forced: number } = { closed: 0, forced: 0 };
  #finish: (stopped: Stopped) => void = () => {};

  constructor({ config, log, pretty }: PrimaryOptions) {
    this.#config = config;
    this.#log = log;
    this.#pretty = pretty;
    this.#scoreboard = Scoreboard.create({ workers: config.workers, listeners: config.listeners.length });
    this.figures = new Figures(config, this.#scoreboard);
    this.#slots = new Slots(config.listeners.map(({ address }) => address.port));
    this.#restarts = Array.from({ length: config.workers }, () => 0);
    this.stopped = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get state(): PrimaryState {
    return this.#state;
  }

  get workers(): readonly WorkerProcess[] {
    return this.#workers;
  }

  /** Actual addresses, in the listeners' order. */
  get addresses(): string[] {
    return this.#config.listeners.map(({ address }, index) =>
      formatAddress(address.host, this.#slots.ports[index] ?? address.port),
    );
  }

  restartsOf(worker: number): number {
    return this.#restarts[worker] ?? 0;
  }

  /**
   * Resolves `true` when every worker accepts, `false` when a stop came first. Throws why a worker ended before
   * that, or could not be started; then no worker is left.
   */
  async start(): Promise<boolean> {
    if (this.#stopping()) return false;
    try {
      for (let index = 0; index < this.#config.workers; index++) this.#spawn(index);
      await this.#all("loaded");
      for (const worker of this.#workers) {
        worker.send({ type: "bind", exclusive: worker.index === 0, ports: this.#slots.ports });
        await worker.reached("bound");
        this.#slots.deposit(worker.index, worker.receiveSlots(this.#config.listeners.length));
      }
      for (const worker of this.#workers) worker.send({ type: "accept" });
      await this.#all("accepting");
      // One may have died after it accepted and before the last one did.
      const dead = this.#workers.find(({ state }) => state === "dead");
      if (dead) throw dead.error();
    } catch (error) {
      if (this.#stopping()) return false;
      this.stop(true);
      await this.stopped;
      throw error;
    }
    this.#state = "running";
    return true;
  }

  /** Begins to stop; called again with `fast`, or at once with it, cuts everything off. */
  stop(fast: boolean): void {
    if (this.#state !== "stopping") this.#beginStop();
    if (!fast || this.#fast) return;
    this.#fast = true;
    for (const worker of this.#workers) worker.send({ type: "abort" });
    this.#killAfter(ABORT_MS, "did not abort");
  }

  #stopping(): boolean {
    return this.#state === "stopping";
  }

  #beginStop(): void {
    this.#state = "stopping";
    for (const pause of this.#pauses) clearTimeout(pause);
    this.#slots.release();
    const { drainMs } = this.#config;
    for (const worker of this.#workers) {
      // A bound one may have been told to accept and be serving already.
      if (worker.state === "accepting" || worker.state === "bound") worker.send({ type: "stop", drainMs });
      // Nothing is open yet, and whatever it is busy with need not be finished.
      else worker.kill();
    }
    this.#killAfter(drainMs + DRAIN_GRACE_MS, `did not stop within its ${drainMs} ms`);
    this.#checkDone();
  }

  #killAfter(ms: number, why: string): void {
    const timer = setTimeout(() => {
      for (const worker of this.#workers.filter(({ state }) => state !== "dead")) {
        this.#log.warn({ worker: worker.index, workerPid: worker.pid }, `worker ${why}: killed`);
        worker.kill();
      }
    }, ms);
    void this.stopped.then(() => clearTimeout(timer));
  }

  #checkDone(): void {
    if (this.#state === "stopping" && this.#workers.every(({ state }) => state === "dead")) this.#finish(this.#tally);
  }

  async #all(state: "loaded" | "accepting"): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.reached(state)));
  }

  #spawn(index: number): WorkerProcess {
    const worker = new WorkerProcess(index, this.#config, this.#scoreboard.fd);
    this.#workers[index] = worker;
    worker.send({ type: "start", worker: index, config: this.#config, pretty: this.#pretty });
    void worker.exited.then(() => this.#onExit(worker));
    return worker;
  }

  #onExit(worker: WorkerProcess): void {
    const { open } = this.figures.worker(worker.index);
    this.figures.retire(worker.index);
    if (this.#state === "running") this.#replace(worker);
    if (this.#state !== "stopping") return;
    this.#tally.closed += worker.stopped?.closed ?? 0;
    this.#tally.forced += worker.stopped?.forced ?? open;
    this.#checkDone();
  }

  /** The slot's sockets are still open, here: clients queue in them until the replacement accepts. */
  #replace(dead: WorkerProcess): void {
    const { index, acceptingSince } = dead;
    const early = acceptingSince === undefined || Date.now() - acceptingSince < EARLY_DEATH_MS;
    const pauseMs = early ? RESPAWN_PAUSE_MS : 0;
    const error = dead.failure && dead.error();
    const reason = error && { reason: error.message, ...(error.cause ? { err: error.cause } : {}) };
    this.#log.error(
      { worker: index, workerPid: dead.pid, pauseMs, ...reason },
      `worker ${index} ${dead.ending}; replacing it`,
    );
    this.#respawn(index, pauseMs);
  }

  #respawn(index: number, pauseMs: number): void {
    const pause = setTimeout(() => {
      this.#pauses.delete(pause);
      try {
        this.#join(this.#spawn(index));
        this.#restarts[index] = this.restartsOf(index) + 1;
      } catch (err) {
        this.#log.error({ worker: index, err }, `worker ${index} could not be started; trying again`);
        this.#respawn(index, RESPAWN_PAUSE_MS);
      }
    }, pauseMs);
    this.#pauses.add(pause);
  }

  /** Brings a replacement to accept. If it ends on the way, #onExit knows what to do; else it is made to end. */
  #join(worker: WorkerProcess): void {
    const steps = async (): Promise<void> => {
      await worker.reached("loaded");
      worker.giveSlots(this.#slots.of(worker.index));
      await worker.reached("bound");
      worker.send({ type: "accept" });
      await worker.reached("accepting");
      this.#log.info({ worker: worker.index, workerPid: worker.pid }, `worker ${worker.index} was replaced`);
    };
    steps().catch((err) => {
      if (this.#state !== "running" || worker.state === "dead") return;
      this.#log.error({ worker: worker.index, err }, `worker ${worker.index} could not be given its sockets`);
      worker.kill();
    });
  }
}
