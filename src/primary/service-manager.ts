/**
 * What systemd hears of the primary, and when: one place that turns the primary's events into the sequences of
 * sd_notify(3). Without systemd it does nothing.
 *
 *   start    FDSTORE…, EXTEND_TIMEOUT…, READY   reload   RELOADING, EXTEND_TIMEOUT…, READY (however it went)
 *   upgrade  RELOADING, …, MAINPID, BARRIER     stop     STOPPING, EXTEND_TIMEOUT
 *
 * After MAINPID the old primary says nothing more; only then does the new one speak. Every slot's socket is kept in
 * the descriptor store, so that clients queue instead of being refused when the service restarts or is killed.
 */
import type { ChangeStatus, Health } from "../control/status.ts";
import type { Notifier } from "../os/notify.ts";
import type { Crew } from "./crew.ts";
import { stillFor } from "./hang.ts";
import type { PrimaryObserver } from "./primary.ts";
import type { SlotsObserver } from "./slots.ts";
import { socketName } from "./socket-names.ts";

/** One step of a change: a worker's start, or the wait for its connections to move. */
const STEP_MS = 90_000;
const BARRIER_MS = 5_000;
const BARRIER_RETRY_MS = 1_000;
/** A worker that has stood still for so long counts as stuck for the watchdog. */
const STUCK_MS = 5_000;

export class ServiceManager implements PrimaryObserver, SlotsObserver {
  readonly #notifier: Notifier;
  /** Whether this process may speak: not before it is the main one, not after. */
  #main: boolean;
  #status = "";
  #watchdog: NodeJS.Timeout | undefined;

  /** `main`: this is the main process from the start. */
  constructor(notifier: Notifier, main: boolean) {
    this.#notifier = notifier;
    this.#main = main;
  }

  get present(): boolean {
    return this.#notifier.enabled;
  }

  /** A stored socket that the configuration does not know. */
  forget(name: string): void {
    this.#say(() => this.#notifier.unstore(name));
  }

  /** For the successor's environment. */
  get environment(): Readonly<Record<string, string>> {
    return this.#notifier.environment;
  }

  /** It is the main process now, and speaks; every socket is kept from now on. */
  begin(crew: Crew): void {
    this.#main = true;
    if (this.present) crew.slots.observe(this);
  }

  /** Every slot is served. */
  ready(status: string, crew: Crew): void {
    this.#status = status;
    this.#say(() => this.#notifier.ready(status));
    this.#feed(crew);
  }

  onStep(): void {
    this.#say(() => this.#notifier.extend(STEP_MS));
  }

  onChange({ kind, outcome, message }: ChangeStatus): void {
    const whole = kind === "reload" || kind === "upgrade";
    if (whole && outcome === "running") this.#say(() => this.#notifier.reloading(`${kind}: checking`));
    else if (whole) this.#say(() => this.#notifier.ready(message));
    else this.#say(() => this.#notifier.status(message));
    if (outcome !== "running") this.#status = message;
  }

  onHealth(health: Health): void {
    this.#say(() => this.#notifier.status(health === "ok" ? this.#status : "degraded: no worker accepts"));
  }

  onStopping(withinMs: number): void {
    this.#say(() => this.#notifier.stopping("stopping"));
    this.#say(() => this.#notifier.extend(withinMs));
  }

  onKept(key: string, slot: number, fd: number): void {
    // A UDP socket shows an error for an ICMP message, which would have it thrown out.
    this.#say(() => this.#notifier.store(socketName(key, slot), fd, !key.startsWith("udp|")));
  }

  onRemoved(key: string, slot: number): void {
    this.#say(() => this.#notifier.unstore(socketName(key, slot)));
  }

  /** Makes `pid` the main process. Resolves when systemd knows; until then this one must not end. */
  async handOn(pid: number, status: string): Promise<void> {
    this.#say(() => this.#notifier.mainPid(pid, status));
    while (this.#main && !(await this.#notifier.barrier(BARRIER_MS))) {
      await new Promise((resolve) => setTimeout(resolve, BARRIER_RETRY_MS));
    }
    this.end();
  }

  /** Says nothing more. */
  end(): void {
    this.#main = false;
    clearInterval(this.#watchdog);
  }

  /** The service is alive as long as one of its workers is: those that hang alone are this primary's business. */
  #feed(crew: Crew): void {
    const { watchdogMs } = this.#notifier;
    if (watchdogMs === undefined || this.#watchdog) return;
    this.#watchdog = setInterval(() => {
      const { accepting } = crew;
      const stuck = accepting.length > 0 && accepting.every((worker) => stillFor(crew, worker) > STUCK_MS);
      if (!stuck) this.#say(() => this.#notifier.watchdog());
    }, watchdogMs / 2);
  }

  #say(what: () => void): void {
    if (this.#main) what();
  }
}
