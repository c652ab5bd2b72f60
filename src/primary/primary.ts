/**
 * The primary's state machine. It starts the workers, holds copies of their sockets, replaces those that die, changes
 * the crew on order and stops it; it never touches a client's bytes.
 *
 *   starting ── every slot accepts ──► running ◄──► reloading | scaling | upgrading
 *       └── a worker ends, or stop() ──┐   └── stop() ──┐ │ stop(), or an upgrade succeeded
 *                                      └────────► stopping ◄┘ ── every worker has ended ──► (done)
 *
 * One change at a time: another is refused, not queued. A change that fails leaves the server as it was.
 * Start: all load their services; then they bind one after the other, because a socket's place in its SO_REUSEPORT
 * group is the order of listen(); then all accept. Nobody accepts before everybody can.
 * Stop: the primary closes its copies first. So the workers are the last holders of their sockets when they have
 * accepted what is queued and close them: newcomers are refused at once instead of waiting for nobody.
 */
import { formatAddress } from "../base/address.ts";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { droppedLines, type Logger, reopenLog } from "../base/log.ts";
import { type LogLevel, MAX_WORKERS } from "../base/settings.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import { within } from "../base/within.ts";
import type { Config } from "../config/config.ts";
import type { ChangeKind, ChangeStatus, ChangeStep, Health, OnStep, PrimaryState } from "../control/status.ts";
import type { PreparedAdmin } from "./admin-port.ts";
import { bindMissing } from "./binding.ts";
import type { Certificates } from "./certificates.ts";
import { Crew, DRAIN_GRACE_MS } from "./crew.ts";
import { watchHangs } from "./hang.ts";
import { whenLate } from "./late.ts";
import { LogLevels } from "./log-level.ts";
import type { Origin } from "./origin.ts";
import { reload } from "./reload.ts";
import { checkRoom, grow, shrink } from "./scale.ts";
import { succeed } from "./succession.ts";
import { Supervision } from "./supervision.ts";
import type { WorkerProcess } from "./worker-process.ts";

/** A fast stop resets connections and writes logs; who takes longer is killed. */
const ABORT_MS = 500;

export interface Stopped {
  /** Connections that ended by themselves or were ended in order. */
  readonly closed: number;
  /** Connections that were cut off. */
  readonly forced: number;
}

/** What goes on, for whoever has to be told (systemd). Every method returns at once. */
export interface PrimaryObserver {
  /** A change has begun, or a step of one: the next may take a while. */
  onStep(): void;
  onChange(change: ChangeStatus): void;
  onHealth(health: Health): void;
  /** A stop has begun, which may take so long. */
  onStopping(withinMs: number): void;
}

export interface PrimaryOptions {
  readonly config: Config;
  /** Workers to begin with. */
  readonly workers: number;
  /** The generation before decides yet: no change until `arrived`. */
  readonly onTrial: boolean;
  readonly log: Logger;
  /** Workers log for people. */
  readonly pretty: boolean;
  readonly origin: Origin;
  /** Those of `config` are there. */
  readonly certificates: Certificates;
  readonly observer: PrimaryObserver;
  /** Reads the configuration again. Throws what is wrong with it. */
  readonly readConfig: () => Config;
  /** Makes the admin server ready for another configuration. Rejects with why it cannot be. */
  readonly prepareAdmin?: (after: Config) => Promise<PreparedAdmin | undefined>;
  /** Hears of a worker that has died although it should serve. */
  readonly onCrash?: (worker: WorkerProcess) => void;
}

export class Primary {
  readonly crew: Crew;
  readonly certificates: Certificates;
  readonly startedAt: number = Date.now();
  /** Settles when a stop is complete: no worker is left. */
  readonly stopped: Promise<Stopped>;
  readonly #options: PrimaryOptions;
  readonly #log: Logger;
  readonly #supervision: Supervision;
  readonly #logLevels: LogLevels;
  #config: Config;
  #configVersion = 1;
  #state: PrimaryState = "starting";
  #lastChange: ChangeStatus | undefined;
  #departing = false;
  #onTrial: boolean;
  #fast = false;
  #tally: { closed: number; forced: number } = { closed: 0, forced: 0 };
  #finish: (stopped: Stopped) => void = () => {};
  #stopHangWatch: () => void = () => {};
  readonly #stopSignal: AbortController = new AbortController();

  constructor(options: PrimaryOptions) {
    const { config, log, pretty, origin, certificates } = options;
    this.#options = options;
    this.certificates = certificates;
    this.#onTrial = options.onTrial;
    this.#config = config;
    this.#log = log;
    const secretsOf = (of: Config): TlsSecrets => certificates.secretsOf(of);
    this.crew = new Crew({ ...origin, secretsOf, log, pretty, onExit: (...end) => this.#onExit(...end) });
    this.#logLevels = new LogLevels(this.crew, log);
    this.#supervision = new Supervision({
      crew: this.crew,
      log,
      stopSignal: this.stopSignal,
      onHealth: (health) => options.observer.onHealth(health),
    });
    this.stopped = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get state(): PrimaryState {
    return this.#state;
  }

  /** `degraded`: no worker accepts. */
  get health(): Health {
    return this.#supervision.health;
  }

  /** Lines of its own that it could not log. */
  get logDropped(): number {
    return droppedLines(this.#log);
  }

  get logLevel(): LogLevel {
    return this.#logLevels.level;
  }

  /**
   * Logs from this level on, here and in every worker, until a reload brings the configuration's again. Resolves when
   * the workers have it; says how many do.
   */
  setLogLevel(level: LogLevel): Promise<{ readonly level: LogLevel; readonly workers: number }> {
    return this.#logLevels.set(level);
  }

  /** USR1: the log file has another name now. Throws why it cannot be opened anew; then nothing changes. */
  reopenLogs(): void {
    const { logFile } = this.#config;
    if (logFile === undefined) return;
    reopenLog(this.#log, logFile);
    this.crew.reopenLogs();
  }

  get config(): Config {
    return this.#config;
  }

  /** Counts the configurations since the start. */
  get configVersion(): number {
    return this.#configVersion;
  }

  get lastChange(): ChangeStatus | undefined {
    return this.#lastChange;
  }

  /** Aborted when it begins to stop. */
  get stopSignal(): AbortSignal {
    return this.#stopSignal.signal;
  }

  /** It has handed everything over and only drains. */
  get departing(): boolean {
    return this.#departing;
  }

  /** Actual addresses, in the listeners' order. */
  get addresses(): string[] {
    return this.#config.listeners.map((listener) => {
      const { protocol, host } = listener.address;
      const text = formatAddress(host, this.crew.slots.portOf(listener));
      return protocol === "udp" ? `udp://${text}` : text;
    });
  }

  /**
   * Resolves `true` when every slot is served, `false` when a stop came first. Throws why a worker ended before that,
   * or could not be started; then no worker is left.
   */
  async start(): Promise<boolean> {
    return (await this.arm()) && (await this.open());
  }

  /** Brings every worker as far as it can come without accepting. As `start` otherwise. */
  arm(): Promise<boolean> {
    return this.#starting(async () => {
      const { crew } = this;
      const { listeners } = this.#config;
      const { workers } = this.#options;
      this.#options.observer.onStep();
      crew.wanted = workers;
      const inherited = crew.slots.count > 0;
      if (inherited) bindMissing(crew.slots, Math.max(crew.slots.count, workers), listeners);
      const hired = Array.from({ length: workers }, (_, slot) => crew.hire(slot, this.#config));
      await Promise.all(hired.map((worker) => worker.loaded()));
      this.#options.observer.onStep();
      if (!inherited) for (const worker of hired) await crew.bind(worker, worker.slot === 0);
      await Promise.all(hired.map((worker) => crew.equip(worker)));
    });
  }

  /** Has everybody accept. As `start` otherwise. */
  open(): Promise<boolean> {
    return this.#starting(async () => {
      const { crew } = this;
      const armed = crew.all;
      await Promise.all(armed.map((worker) => crew.open(worker)));
      for (const worker of armed) crew.install(worker);
      this.#state = "running";
      this.#stopHangWatch = watchHangs(crew, () => this.#config.hangMs, this.#log);
    });
  }

  /** Begins to stop; called again with `fast`, or at once with it, cuts everything off. */
  stop(fast: boolean): void {
    if (this.#state !== "stopping") {
      this.#options.observer.onStopping(this.#config.drainMs + 2 * DRAIN_GRACE_MS);
      this.#beginStop();
    }
    if (!fast || this.#fast) return;
    this.#fast = true;
    for (const worker of this.crew.all) {
      worker.send({ type: "abort" });
      void worker.exited.then(whenLate(ABORT_MS, () => worker.kill()));
    }
  }

  /**
   * The next generation serves and is the main one: gives it the connections and drains the rest. `give` moves the
   * connections of one worker.
   */
  depart(give: (worker: WorkerProcess) => Promise<void>): void {
    this.#departing = true;
    this.#state = "stopping";
    this.crew.closed = true;
    this.#stopSignal.abort();
    this.crew.slots.release();
    for (const worker of this.crew.all) void this.#depart(worker, give);
    this.#checkDone();
  }

  /** HUP. Throws `busy` at once; rejects with why it failed, and then everything is as it was. */
  reload(replace: boolean): Promise<string> {
    return this.change("reload", "reloading", async () => {
      const { crew } = this;
      const before = this.#config;
      const after = this.#options.readConfig();
      this.certificates.require(after);
      const certificates = this.renewCertificates({ tell: true });
      const onStep: OnStep = (step) => this.step(step);
      const scaled = before.workers !== after.workers;
      const from = crew.wanted;
      // What may fail comes first.
      if (scaled && after.workers <= from) checkRoom(crew, after.workers);
      const admin = await this.#options.prepareAdmin?.(after);
      const undo = (error: unknown): never => {
        admin?.cancel();
        throw error;
      };
      if (scaled && after.workers > from) await this.#scaleTo(after.workers).catch(undo);
      const reloading = reload({ crew, log: this.#log, before, after, replace, onStep });
      const { replaced, moved, kept, live } = await reloading.catch(async (error) => {
        await this.#logLevels.again();
        if (crew.wanted > from && !crew.closed) await this.#scaleTo(from);
        return undo(error);
      });
      this.#config = after;
      this.#configVersion += 1;
      await this.#logLevels.configured(after.logLevel);
      // The configuration is in effect: this alone is as it was.
      const left = await admin?.commit().then(
        () => [],
        (error) => [`the admin server stays as it was: ${messageOf(error)}`],
      );
      if (scaled && after.workers < crew.wanted) await this.#scaleTo(after.workers);
      const done = replaced === 0 ? `${many(live, "option")} changed in place` : `${many(replaced, "worker")} replaced`;
      const text = `reloaded: configuration ${this.#configVersion}, ${done}, ${movedText(moved, kept)}`;
      return [text, ...certificates, ...(left ?? [])].join("; ");
    });
  }

  /** Reads the certificate files again, and has newcomers get what is new. Returns what there is to say of it. */
  renewCertificates(how: { readonly tell: boolean }): string[] {
    const { renewed, kept } = this.certificates.renew(this.#config, how);
    if (renewed.length > 0) this.crew.secure();
    return [...renewed.map((name) => `listener ${name} has a new certificate`), ...kept];
  }

  /** TTIN, TTOU, `scale N`. As `reload`. */
  scale(workers: number): Promise<string> {
    if (workers > MAX_WORKERS) {
      throw new HeadraceError("change-refused", `${workers} workers are too many; allowed: 1 to ${MAX_WORKERS}`);
    }
    return this.change("scale", "scaling", () => this.#scaleTo(workers));
  }

  /** Puts a fresh worker into a slot and moves the connections to it. As `reload`. */
  drain(slot: number): Promise<string> {
    const owner = this.crew.ownerOf(slot);
    if (!owner) {
      const allowed = this.crew.owners.map((worker) => worker.slot).join(", ") || "none";
      throw new HeadraceError("change-refused", `there is no worker ${slot}; there are: ${allowed}`, {
        given: String(slot),
        allowed,
      });
    }
    return this.change("drain", "scaling", async () => {
      this.step({ what: `replacing worker ${slot}`, done: 0, of: 1 });
      const { moved, kept } = await succeed(slot, owner.config, { crew: this.crew, log: this.#log, proveMs: 0 });
      return `worker ${slot} was replaced, ${movedText(moved, kept)}`;
    });
  }

  /** One change at a time. Throws `busy` at once when it cannot begin. */
  change(kind: ChangeKind, state: PrimaryState, work: () => Promise<string>): Promise<string> {
    this.#refuseWhenBusy(kind);
    this.#state = state;
    this.#report({ kind, outcome: "running", message: `${kind} began`, at: now() });
    return this.#carryOut(kind, state, work);
  }

  async #carryOut(kind: ChangeKind, state: PrimaryState, work: () => Promise<string>): Promise<string> {
    try {
      const message = await work();
      this.#log.info({ change: kind }, message);
      this.#settleChange(state);
      this.#report({ kind, outcome: "done", message, at: now() });
      return message;
    } catch (error) {
      const reason = this.#stopping() && !this.#departing ? "the server stops" : messageOf(error);
      const still = kind === "upgrade" ? `; still generation ${this.crew.generation}` : "";
      const message = `${kind} failed: ${reason}${still}`;
      const cause = error instanceof HeadraceError ? error.cause : error;
      this.#log.error({ change: kind, ...(cause ? { err: cause } : {}) }, message);
      this.#settleChange(state);
      this.#report({ kind, outcome: "failed", message, at: now() });
      throw new HeadraceError("change-failed", message, {}, { cause: error });
    } finally {
      this.crew.tidy(this.#config.listeners);
      this.certificates.keepOnly(this.#config);
    }
  }

  #settleChange(state: PrimaryState): void {
    if (this.#state === state) this.#state = "running";
  }

  /** The error for a change that cannot begin now. */
  busy(kind: ChangeKind, why: string): HeadraceError {
    return new HeadraceError("busy", `no ${kind} now: ${why}; try again`);
  }

  #refuseWhenBusy(kind: ChangeKind): void {
    if (this.#onTrial) throw this.busy(kind, "this generation is on trial");
    if (this.#state !== "running") throw this.busy(kind, `the server is ${this.#state}`);
    const { draining, owners } = this.crew;
    if (draining.length > owners.length) throw this.busy(kind, `${draining.length} replaced workers still drain`);
  }

  /** A change goes on, which may take a while: `status` says where it stands. */
  step(step?: ChangeStep): void {
    this.#options.observer.onStep();
    if (step && this.#lastChange?.outcome === "running") this.#lastChange = { ...this.#lastChange, step };
  }

  #report(change: ChangeStatus): void {
    this.#lastChange = change;
    this.#options.observer.onChange(change);
  }

  async #scaleTo(workers: number): Promise<string> {
    const { crew } = this;
    const from = crew.wanted;
    const options = {
      crew,
      log: this.#log,
      config: { ...this.#config, workers },
      onStep: (step?: ChangeStep) => this.step(step),
    };
    checkRoom(crew, workers);
    const fewer = workers < from || crew.slots.count > workers;
    const moved = workers > from ? await grow(workers, options) : fewer ? await shrink(workers, options) : 0;
    return `scaled from ${from} to ${many(workers, "worker")}, ${movedText(moved, 0)}`;
  }

  /** More slots were inherited than there are workers: siblings serve them until they are removed in order. */
  trim(): void {
    if (this.crew.slots.count > Math.max(this.crew.wanted, this.crew.slots.least)) {
      // Whoever came first with another change may have it: what is too much is served, and trimmed by the next one.
      if (this.#state === "running") this.scale(this.crew.wanted).catch(() => {});
    }
  }

  /** An upgrade has made this the main primary. */
  arrived(message: string): void {
    this.#onTrial = false;
    this.#lastChange = { kind: "upgrade", outcome: "done", message, at: now() };
  }

  /** What every step of a start has in common: it ends with a stop, one way or the other, when it fails. */
  async #starting(step: () => Promise<void>): Promise<boolean> {
    if (this.#stopping()) return false;
    try {
      await step();
    } catch (error) {
      if (this.#stopping()) return false;
      this.stop(true);
      await this.stopped;
      throw error;
    }
    return !this.#stopping();
  }

  #stopping(): boolean {
    return this.#state === "stopping";
  }

  #beginStop(): void {
    this.#state = "stopping";
    this.crew.closed = true;
    this.#stopSignal.abort();
    this.crew.slots.release();
    this.hasten();
    this.#checkDone();
  }

  /** Everybody is to have ended by the drain deadline from now, also those that may have had more time. */
  hasten(): void {
    const { drainMs } = this.#config;
    for (const worker of this.crew.all) void this.crew.dismiss(worker, { drainMs, tlsMs: 0, queued: true });
  }

  async #depart(worker: WorkerProcess, give: (worker: WorkerProcess) => Promise<void>): Promise<void> {
    const started = performance.now();
    const { drainMs, tlsDrainMs } = this.#config;
    // It drains already, and has its deadline.
    if (worker.state === "stopping") return;
    if (worker.state === "accepting") {
      try {
        // Nobody takes over an address that the next generation does not have: what waits there is accepted first.
        await this.crew.retire(worker, true);
        await within(drainMs, give(worker), () => {
          throw new Error(`not within ${drainMs} ms`);
        });
      } catch (error) {
        const dead = this.crew.all.every((each) => each !== worker);
        if (!dead) {
          const reason = messageOf(error);
          this.#log.warn({ worker: worker.slot, reason }, "connections could not be moved; they drain");
        }
      }
    }
    const leftMs = Math.max(0, drainMs - (performance.now() - started));
    await this.crew.dismiss(worker, { drainMs: leftMs, tlsMs: tlsDrainMs, queued: false });
  }

  #checkDone(): void {
    if (!this.#stopping() || this.crew.all.length > 0) return;
    this.#stopHangWatch();
    this.#finish(this.#tally);
  }

  #onExit(worker: WorkerProcess, owned: boolean, open: number): void {
    if (this.#stopping()) {
      this.#tally.closed += worker.stopped?.closed ?? 0;
      this.#tally.forced += worker.stopped?.forced ?? open;
      this.#checkDone();
      return;
    }
    if (worker.acceptingSince !== undefined && worker.stopped === undefined && open > 0) {
      const lost = { worker: worker.slot, workerPid: worker.pid, connections: open };
      this.#log.error(lost, `worker ${worker.slot} ${worker.ending}: ${many(open, "connection")} cut off`);
    }
    if (!owned || this.#state === "starting") return;
    this.#options.onCrash?.(worker);
    this.#supervision.replace(worker);
  }
}

const now = (): string => new Date().toISOString();

function many(count: number, what: string): string {
  return `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;
}

function movedText(moved: number, kept: number): string {
  const left = kept === 0 ? "" : `, ${many(kept, "connection")} left to drain`;
  return `${many(moved, "connection")} moved${left}`;
}
