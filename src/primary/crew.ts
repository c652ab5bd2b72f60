/**
 * The workers and what they work with: slots, seats, scoreboard, admission. Every change to the crew (start, crash,
 * reload, scale, drain, upgrade) is made of the same few steps, each bounded in time:
 *
 *   hire ─► equip ─► open ─► install ─► (the predecessor:) retire ─► move ─► dismiss
 *
 * A worker is *installed* when its slot is its own; until then it may accept beside its predecessor, so that there is
 * no moment in which nobody does. The crew makes no decision and keeps nobody alive: primary.ts hears of each end.
 */

import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { LogLevel } from "../base/settings.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import type { Config, ListenerConfig } from "../config/config.ts";
import type { MetricsSnapshot } from "../control/metrics-snapshot.ts";
import type { Moved, ToWorker } from "../control/worker-messages.ts";
import { type AdmissionTable, admissionColumn, halfOf } from "../os/admission-table.ts";
import type { CloseRings } from "../os/close-rings.ts";
import { closeDescriptor, openChannel } from "../os/descriptors.ts";
import { NO_SEAT, Scoreboard, SEATS } from "../os/scoreboard.ts";
import type { TicketKeys } from "../os/ticket-keys.ts";
import { Figures } from "./figures.ts";
import { whenLate } from "./late.ts";
import type { Rows } from "./rows.ts";
import type { Slots } from "./slots.ts";
import { WorkerProcess } from "./worker-process.ts";

/**
 * For orders that are carried out in the turn in which they come. A worker that is busy answers later, and one that
 * hangs is killed by the watch on hanging workers; this is for those that nobody watches (`timeouts.hang: off`).
 */
const ANSWER_MS = 60_000;
/** Workers force what is open at the drain deadline; who is still there this much later is killed. */
export const DRAIN_GRACE_MS = 1_000;

export interface CrewOptions {
  readonly generation: number;
  readonly admission: AdmissionTable;
  readonly topics: number;
  readonly tickets: TicketKeys;
  readonly closes: CloseRings;
  readonly slots: Slots;
  readonly rows: Rows;
  /** Certificates and keys for a worker that runs by `config`. */
  readonly secretsOf: (config: Config) => TlsSecrets;
  readonly log: Logger;
  /** Workers log for people. */
  readonly pretty: boolean;
  /** A worker has ended; it has no seat and no slot any more. `owned`: its slot was its own. `open`: connections cut. */
  onExit(worker: WorkerProcess, owned: boolean, open: number): void;
}

export class Crew {
  readonly slots: Slots;
  readonly rows: Rows;
  readonly figures: Figures;
  readonly admission: AdmissionTable;
  /** Memory of the topics. */
  readonly topics: number;
  /** Of TLS sessions. */
  readonly tickets: TicketKeys;
  /** The last connections that ended. */
  readonly closes: CloseRings;
  readonly generation: number;
  /** Slots 0 to `wanted` - 1 have an owner of their own; more slots than that are served by siblings. */
  wanted = 0;
  /** Nobody is hired any more. */
  closed = false;
  /** In place of the configuration's, for workers to come. */
  logLevel: LogLevel | undefined;
  readonly #options: CrewOptions;
  readonly #scoreboard: Scoreboard = Scoreboard.create();
  readonly #all: Set<WorkerProcess> = new Set();
  /** Per slot. */
  readonly #owners: Map<number, WorkerProcess> = new Map();
  readonly #restarts = new Map<number, number>();
  /** What a slot's worker runs by, and its replacement will. */
  readonly #configs = new Map<number, Config>();
  #moves = 0;

  constructor(options: CrewOptions) {
    this.#options = options;
    this.slots = options.slots;
    this.rows = options.rows;
    this.admission = options.admission;
    this.topics = options.topics;
    this.tickets = options.tickets;
    this.closes = options.closes;
    this.generation = options.generation;
    this.figures = new Figures(this.#scoreboard, () => ({
      workers: [...this.#all].map((worker) => {
        const { slot, seat, pid, state } = worker;
        return { slot, seat, pid, state, owner: this.#owners.get(slot) === worker };
      }),
      rows: this.rows.used,
    }));
  }

  /** The scoreboard's clock of a worker that stands still on purpose proves nothing until then; performance.now(). */
  readonly excused: Map<WorkerProcess, number> = new Map();

  /** Every living worker: owners, those that join, those that drain. */
  get all(): WorkerProcess[] {
    return [...this.#all];
  }

  /** The owners of slots, in the order of the slots. */
  get owners(): WorkerProcess[] {
    return [...this.#owners.values()].sort((a, b) => a.slot - b.slot);
  }

  ownerOf(slot: number): WorkerProcess | undefined {
    return this.#owners.get(slot);
  }

  get accepting(): WorkerProcess[] {
    return this.owners.filter(({ state }) => state === "accepting");
  }

  /** Those that are not, or no more, a slot's owner and still have connections. */
  get draining(): WorkerProcess[] {
    return this.all.filter((worker) => worker.acceptingSince !== undefined && this.ownerOf(worker.slot) !== worker);
  }

  restartsOf(slot: number): number {
    return this.#restarts.get(slot) ?? 0;
  }

  countRestart(slot: number): void {
    this.#restarts.set(slot, this.restartsOf(slot) + 1);
  }

  /** Clock (ms, CLOCK_MONOTONIC) of a worker's last tick. */
  clockOf(worker: WorkerProcess): number {
    return this.#scoreboard.block(worker.seat).get("clock");
  }

  openOf(worker: WorkerProcess): number {
    return this.figures.worker(worker.seat).open;
  }

  /** Everything that is counted. `listeners`: as configured now. */
  snapshot(listeners: readonly ListenerConfig[]): MetricsSnapshot {
    const rows = this.rows.assign(listeners);
    const described = listeners.map(({ name, address }, index) => {
      return [rows[index] ?? 0, { name, datagrams: address.protocol === "udp" }] as const;
    });
    return this.figures.snapshot({
      generation: this.generation,
      slots: this.wanted,
      listeners: new Map(described),
      restartsOf: (slot) => this.restartsOf(slot),
    });
  }

  /** What a slot's next worker is to run by. */
  configOf(slot: number): Config {
    const config = this.#configs.get(slot);
    if (!config) throw new Error(`crew: slot ${slot} never had a worker`);
    return config;
  }

  /** Starts a worker for a slot. Throws when it cannot be forked. */
  hire(slot: number, config: Config): WorkerProcess {
    if (this.closed) throw new HeadraceError("change-failed", "the server stops");
    const seat = this.#freeSeat();
    const rows = this.rows.assign(config.listeners);
    const worker = new WorkerProcess(
      {
        type: "start",
        slot,
        seat,
        column: admissionColumn(this.generation, seat),
        generation: this.generation,
        config,
        tls: this.#options.secretsOf(config),
        rows,
        pretty: this.#options.pretty,
        logLevel: this.logLevel ?? config.logLevel,
      },
      {
        scoreboard: this.#scoreboard.fd,
        admission: this.admission.fd,
        topics: this.topics,
        wake: this.admission.wakeFd,
        tickets: this.tickets.fd,
        closes: this.closes.fd,
      },
    );
    this.#all.add(worker);
    void worker.exited.then(() => this.#bury(worker));
    return worker;
  }

  /** Brings a hired worker as far as it can come without accepting. */
  async equip(worker: WorkerProcess): Promise<void> {
    await worker.loaded();
    const bound = worker.answered("bound");
    try {
      worker.giveSockets(this.slots.indices, this.slots);
    } catch (error) {
      bound.catch(() => {});
      throw error;
    }
    await bound;
  }

  /** Binds the sockets of a slot that has none yet, by its first worker. The others get copies. */
  async bind(worker: WorkerProcess, exclusive: boolean): Promise<void> {
    const { listeners } = worker;
    const bound = worker.answered("bound");
    worker.send({ type: "bind", exclusive, ports: listeners.map((listener) => this.slots.portOf(listener)) });
    await bound;
    const sockets = worker.receiveSockets();
    for (const [index, listener] of listeners.entries()) this.slots.keep(worker.slot, listener, sockets[index] ?? -1);
  }

  /** Gives every worker the sockets that it lacks: those of a new slot. */
  announce(): void {
    for (const worker of this.all.filter(({ equipped }) => equipped)) {
      try {
        worker.giveSockets(this.slots.indices, this.slots);
      } catch (error) {
        // It is dying, or so far behind that its channel is full: its replacement gets them all.
        this.#options.log.warn({ worker: worker.slot, reason: messageOf(error) }, "worker takes no sockets: killed");
        worker.kill();
      }
    }
  }

  /** Has it accept. Both it and whoever owns the slot do so from now on. */
  async open(worker: WorkerProcess): Promise<void> {
    this.#level(worker);
    const accepting = worker.answered("accepting");
    worker.send({ type: "accept" });
    await accepting;
  }

  /** Makes the slot its own. Returns the predecessor, if there is one. */
  install(worker: WorkerProcess): WorkerProcess | undefined {
    if (worker.state === "dead") throw worker.error();
    const before = this.#owners.get(worker.slot);
    this.#owners.set(worker.slot, worker);
    this.#configs.set(worker.slot, worker.config);
    this.#scoreboard.owners[worker.slot] = worker.seat;
    return before;
  }

  /** Has it accept nothing any more, and close its sockets. `queued`: first what waits in those it accepts from. */
  async retire(worker: WorkerProcess, queued: boolean): Promise<void> {
    await this.#ask(worker, { type: "retire", queued }, worker.answered("retired"));
  }

  /** A slot that has no worker now will have one with `config`. */
  intend(slot: number, config: Config): void {
    this.#configs.set(slot, config);
  }

  /** Has it take over what can change in place. Returns why it cannot, if so; then it changed nothing. */
  async configure(worker: WorkerProcess, config: Config): Promise<string | undefined> {
    const order = { type: "configure", config, tls: this.#options.secretsOf(config) } as const;
    const { problem } = await this.#ask(worker, order, worker.answered("configured"));
    if (problem !== undefined) return problem;
    worker.config = config;
    this.intend(worker.slot, config);
    return undefined;
  }

  /** Has everybody who accepts, or will, use the certificates that there are now. */
  secure(): void {
    for (const worker of this.#all) {
      if (worker.leavingSince !== undefined) continue;
      worker.send({ type: "secure", tls: this.#options.secretsOf(worker.config) });
    }
  }

  /** Has everybody write to the log file that has its name now. */
  reopenLogs(): void {
    for (const worker of this.#all) worker.send({ type: "reopenLog" });
  }

  /** Moves connections from one worker to another: all that can, or at most `most`. What goes wrong moves nothing. */
  async move(
    from: WorkerProcess,
    to: WorkerProcess,
    options: { readonly most?: number; readonly handOff: boolean },
  ): Promise<Moved> {
    const [source, target] = openChannel();
    const answer = this.give(from, source, options, () => this.receive(to, target));
    // Sent by now, and copies here would hide it from each worker when the other one dies.
    closeDescriptor(source);
    closeDescriptor(target);
    return answer;
  }

  /**
   * Has a worker give connections to whoever has the other end of `channel`, of which it has a copy when this returns
   * its promise. `meanwhile` starts the other side.
   */
  async give(
    from: WorkerProcess,
    channel: number,
    options: { readonly most?: number; readonly handOff: boolean },
    meanwhile: () => unknown,
  ): Promise<Moved> {
    const id = ++this.#moves;
    const answer = from.answered("moved", (message) => message.id === id);
    answer.catch(() => {});
    from.move({ type: "moveOut", id, withinMs: from.config.drainMs, ...options }, channel);
    meanwhile();
    return answer;
  }

  /** Has a worker take the connections that come through `channel`. */
  receive(to: WorkerProcess, channel: number): void {
    to.move({ type: "moveIn", id: ++this.#moves }, channel);
  }

  /**
   * Has it end: drained, and killed when it does not keep the deadline. Resolves when it has gone. `tlsMs`: its TLS
   * connections, which have nowhere to go, leave over this time; 0: with the others. Called again for one that drains,
   * it is a shorter deadline.
   */
  async dismiss(
    worker: WorkerProcess,
    { drainMs, tlsMs, queued }: { readonly drainMs: number; readonly tlsMs: number; readonly queued: boolean },
  ): Promise<void> {
    const { log } = this.#options;
    const within = drainMs + tlsMs;
    const onTime = whenLate(within + DRAIN_GRACE_MS, () => {
      log.warn({ worker: worker.slot, workerPid: worker.pid }, `worker did not stop within its ${within} ms: killed`);
      worker.kill();
    });
    if (worker.state === "starting" || worker.state === "loaded") worker.kill();
    else worker.send({ type: "stop", drainMs, tlsMs, queued });
    await worker.exited;
    onTime();
  }

  /** Has everybody close the sockets of a slot that nobody gets connections for any more; its owner comes last. */
  async drop(slot: number): Promise<void> {
    this.slots.removeLast();
    const holders = this.all.filter((worker) => worker.holds(slot));
    const ask = async (worker: WorkerProcess): Promise<void> => {
      const dropped = worker.answered("dropped", (message) => message.slot === slot);
      // One that dies instead holds nothing either.
      await this.#ask(worker, { type: "drop", slot }, dropped).catch(() => {});
    };
    const isOwner = (worker: WorkerProcess): boolean => this.ownerOf(slot) === worker;
    await Promise.all(holders.filter((worker) => !isOwner(worker)).map(ask));
    await Promise.all(holders.filter(isOwner).map(ask));
  }

  /** The slot has no owner any more. */
  vacate(slot: number): void {
    this.#owners.delete(slot);
    this.#scoreboard.owners[slot] = NO_SEAT;
  }

  /** Frees what removed listeners had, once no worker is left that knew them. */
  tidy(listeners: readonly ListenerConfig[]): void {
    const known = [...listeners, ...this.all.flatMap((worker) => worker.listeners)];
    for (const row of this.rows.keepOnly(known)) this.figures.forget(row);
  }

  async #ask<Answer>(worker: WorkerProcess, order: ToWorker<Config>, answer: Promise<Answer>): Promise<Answer> {
    const onTime = whenLate(ANSWER_MS, () => {
      const told = { worker: worker.slot, workerPid: worker.pid };
      this.#options.log.warn(told, `worker did not answer "${order.type}" within ${ANSWER_MS} ms: killed`);
      worker.kill();
    });
    worker.send(order);
    try {
      return await answer;
    } finally {
      onTime();
    }
  }

  /** The log's level may have been changed while the worker loaded its services, and could not be told. */
  #level(worker: WorkerProcess): void {
    const level = this.logLevel ?? worker.config.logLevel;
    // Carried out in its turn; a worker that hangs is noticed by who waits for it to accept.
    if (level !== worker.logLevel) worker.ask("logLevel", { level }, ANSWER_MS).catch(() => {});
  }

  #freeSeat(): number {
    const taken = new Set([...this.#all].map(({ seat }) => seat));
    for (let seat = 0; seat < SEATS; seat++) {
      if (taken.has(seat)) continue;
      this.admission.setHighWater(halfOf(this.generation), Math.max(seat, ...taken) + 1);
      return seat;
    }
    throw new HeadraceError(
      "change-failed",
      `${SEATS} worker processes are there already, most of them draining: wait until some have ended`,
    );
  }

  #bury(worker: WorkerProcess): void {
    const owned = this.#owners.get(worker.slot) === worker;
    if (owned) this.vacate(worker.slot);
    const open = this.openOf(worker);
    this.figures.retire(worker);
    this.admission.clearColumn(admissionColumn(this.generation, worker.seat));
    this.#all.delete(worker);
    this.excused.delete(worker);
    this.#options.onExit(worker, owned, open);
  }
}
