/**
 * A client at work: calls on one side, the connections of its targets on the other. A call gets a connection that has
 * room, or waits in one line with all others, first come first served, for whichever has room next. Nothing waits
 * without a deadline, and a call ends once, in `settle`.
 */
import { ConnectFailed, DeadlineExceeded, HeadraceError, ServerBusy } from "../base/errors.ts";
import type { Engine } from "../engine/engine.ts";
import type { CallOptions, Cancellable } from "../service/call.ts";
import { Call } from "./call.ts";
import { choose } from "./choose.ts";
import type { PooledConnection } from "./connection.ts";
import { ClientCounters, type ClientCounts, type Eviction, type Outcome } from "./counters.ts";
import { CallDeadlines } from "./deadlines.ts";
import type { Exchange } from "./exchange.ts";
import { joinEngine, leaveEngine } from "./registry.ts";
import { RetryBudget } from "./retries.ts";
import type { ClientSettings } from "./settings.ts";
import { type Pool, Target, type TargetOptions, type TargetStats } from "./target.ts";
import { WaitingCalls } from "./waiting.ts";

export interface PoolOptions {
  readonly name: string;
  readonly settings: ClientSettings;
  /** At least one. */
  targets(counters: ClientCounters): readonly TargetOptions[];
  makeExchange(): Exchange;
}

export interface ClientStats {
  readonly name: string;
  readonly targets: readonly TargetStats[];
  /** Calls that wait for a connection. */
  readonly waiting: number;
  /** Calls that have not ended. */
  readonly pending: number;
  readonly counts: ClientCounts;
}

/** What is done for a call that has not ended when its connection is lost. */
type Afterwards = "again" | "fails";

export class ConnectionPool implements Pool {
  readonly name: string;
  readonly settings: ClientSettings;
  readonly counters: ClientCounters = new ClientCounters();
  readonly makeExchange: () => Exchange;
  readonly #targets: readonly Target[];
  readonly #waiting = new WaitingCalls();
  readonly #deadlines = new CallDeadlines((call) => this.#expire(call));
  readonly #retries: RetryBudget;
  #engine: Engine | undefined;
  /** No connection is opened any more. */
  #ending = false;
  #closed: Promise<void> | undefined;
  #emptied: () => void = () => {};

  constructor({ name, targets, settings, makeExchange }: PoolOptions) {
    this.name = name;
    this.settings = settings;
    this.makeExchange = makeExchange;
    this.#retries = new RetryBudget(settings.retryShare);
    this.#targets = targets(this.counters).map((options) => new Target(this, options));
  }

  /** Throws `engine-thread` off the main thread. */
  get engine(): Engine {
    this.#engine ??= joinEngine(this);
    return this.#engine;
  }

  /** Rejects as `Client.call` says; never throws. */
  call(message: unknown, options: CallOptions, leftMs: number, held: Set<Cancellable> | undefined): Promise<unknown> {
    const now = performance.now();
    const timeoutMs = Math.min(options.timeoutMs ?? this.settings.callMs, leftMs);
    const call = new Call(this, message, options, now, timeoutMs, held);
    this.counters.calls += 1;
    const refusal = this.#refusal(call);
    if (refusal) {
      this.settle(call, refusal.outcome, refusal.error);
      return call.promise;
    }
    this.#retries.earn();
    call.watch();
    this.#deadlines.add(call);
    if (this.#waiting.size > 0 || !this.#place(call)) this.#wait(call);
    return call.promise;
  }

  giveUp(call: Call, error: unknown): void {
    this.#release(call, "cancelled", error, false);
  }

  /**
   * Takes no more calls; those there are have `graceMs` to end, then they fail with `client-closed`. Closes every
   * connection. Idempotent.
   */
  close(graceMs: number): Promise<void> {
    this.#closed ??= this.#end(graceMs);
    return this.#closed;
  }

  stats(): ClientStats {
    return {
      name: this.name,
      targets: this.#targets.map((target) => target.stats()),
      waiting: this.#waiting.size,
      pending: this.#deadlines.size,
      counts: this.counters.snapshot(),
    };
  }

  // ---- what targets say ----

  settle(call: Call, outcome: Outcome, value: unknown): void {
    if (call.ended) return;
    this.#deadlines.remove(call);
    this.#waiting.remove(call);
    this.counters.end(outcome, performance.now() - call.startedAt);
    if (outcome === "ok") call.resolve(value);
    else call.reject(value);
    if (this.#deadlines.size === 0) this.#emptied();
  }

  changed(target: Target, connection: PooledConnection): void {
    this.#feed(connection);
    const { idle, idlePerTarget } = this.settings;
    if (target.room > idlePerTarget && target.idle > idlePerTarget) target.trim(idlePerTarget);
    else if (this.#sum(roomOf) > idle && this.#sum(idleOf) > idle) target.trim(target.idle - 1);
  }

  lost(calls: readonly Call[], eviction: Eviction, error: HeadraceError): void {
    // The first of them goes to the front last.
    for (const call of calls.toReversed()) {
      call.connection = undefined;
      if (this.#afterwards(call, eviction) === "again") this.#waiting.prepend(call);
      else if (eviction === "closing") this.settle(call, "client-closed", closedError(this.name));
      else this.settle(call, error.code === "reply-invalid" ? "reply-invalid" : "connection-lost", error);
    }
    if (this.#waiting.first?.again) this.#serveWaiting();
    this.#demand();
  }

  failed(): void {
    this.#demand();
  }

  // ---- what the engine says ----

  tick(engine: Engine): void {
    for (const target of this.#targets) target.reap(engine.now);
    if (this.#waiting.size === 0) return;
    // A connection that was unsure may be fit by now, and a target's pause over.
    this.#serveWaiting();
    this.#demand();
  }

  /** The worker has stopped: what is under way is lost. */
  engineEnded(): void {
    this.#shut();
    this.#ending = this.#closed !== undefined;
    this.#engine = undefined;
  }

  // ---- calls ----

  /** Why it is not even begun. */
  #refusal(call: Call): { readonly outcome: Outcome; readonly error: unknown } | undefined {
    const { signal } = call.options;
    if (this.#closed) return { outcome: "client-closed", error: closedError(this.name) };
    if (signal?.aborted) return { outcome: "cancelled", error: signal.reason };
    if (!(call.deadlineAt > call.startedAt)) {
      return { outcome: "deadline", error: new DeadlineExceeded(`${this.name}: no time is left`) };
    }
    try {
      void this.engine;
    } catch (error) {
      return { outcome: "not-sent", error };
    }
    return undefined;
  }

  /** Sends it if some connection has room. A target that should have one and has none gets one meanwhile. */
  #place(call: Call): boolean {
    const wanted = choose(this.#targets, this.#isUsable);
    let connection = wanted?.take();
    if (!connection) {
      if (wanted && wanted.connecting === 0 && this.#mayOpen(wanted)) wanted.open();
      connection = choose(this.#targets, hasRoom)?.take();
    }
    if (!connection) return false;
    this.#begin(call, connection);
    return true;
  }

  #begin(call: Call, connection: PooledConnection): void {
    const leftMs = call.deadlineAt - performance.now();
    if (leftMs <= 0) {
      this.#expire(call);
      return;
    }
    if (connection.proven) this.counters.reused += 1;
    try {
      connection.begin(call, leftMs);
    } catch (error) {
      this.settle(call, "not-sent", error);
    }
  }

  #wait(call: Call): void {
    if (this.#waiting.size >= this.settings.waiting) {
      const text = `${this.name}: ${this.#waiting.size} calls wait for a connection already (limits.waiting)`;
      this.settle(call, "waiting-full", new ServerBusy("waiting-full", text));
      return;
    }
    this.#waiting.append(call);
    this.counters.waited += 1;
    this.#demand();
  }

  /** Calls that wait get the room that a connection has. */
  #feed(connection: PooledConnection): void {
    for (let call = this.#waiting.first; call && connection.hasRoom; call = this.#waiting.first) {
      if (connection.check() !== "fit") return;
      this.#waiting.remove(call);
      this.counters.waitedMs += performance.now() - call.startedAt;
      this.#begin(call, connection);
    }
  }

  /** Calls that wait get whatever room there is. */
  #serveWaiting(): void {
    for (let call = this.#waiting.first; call; call = this.#waiting.first) {
      const connection = choose(this.#targets, hasRoom)?.take();
      if (connection) this.#feed(connection);
      if (call === this.#waiting.first) return;
    }
  }

  /** Opens as many connections as the calls that wait need. When there will be none, they fail. */
  #demand(): void {
    if (this.#ending) return;
    let wanted = Math.ceil(this.#waiting.size / this.settings.inFlight) - this.#sum(connectingOf);
    for (; wanted > 0; wanted--) {
      const target = choose(this.#targets, this.#mayOpen);
      if (!target) break;
      target.open();
    }
    if (wanted > 0 && this.#sum(sizeOf) === 0) this.#failWaiting();
  }

  #failWaiting(): void {
    const failures = this.#targets.flatMap(({ lastFailure }) => (lastFailure ? [lastFailure] : []));
    const pauseMs = Math.ceil(Math.min(...this.#targets.map((target) => target.pauseMs)));
    const problem = failures.map(({ message }) => message).join("; ") || "the targets close every connection";
    const text = `${this.name}: ${problem}; tried again in ${pauseMs} ms`;
    const [last] = failures.slice(-1);
    const fields = last?.fields ?? { address: this.#targets.map((target) => target.text).join(", ") };
    for (let call = this.#waiting.first; call; call = this.#waiting.first) {
      this.settle(call, "connect-failed", new ConnectFailed(text, fields, last ? { cause: last } : {}));
    }
  }

  readonly #mayOpen = (target: Target): boolean =>
    !this.#ending && target.mayOpen && this.#sum(sizeOf) < this.settings.connections;

  readonly #isUsable = (target: Target): boolean => target.room > 0 || this.#mayOpen(target);

  #sum(figure: (target: Target) => number): number {
    let sum = 0;
    for (const target of this.#targets) sum += figure(target);
    return sum;
  }

  #expire(call: Call): void {
    const ms = Math.round(call.deadlineAt - call.startedAt);
    const connecting = this.#sum(connectingOf) > 0;
    const what = call.connection
      ? `no reply from ${call.connection.address}`
      : `no connection had room${connecting ? " and none came about" : ""}`;
    this.#release(call, "deadline", new DeadlineExceeded(`${this.name}: ${what} within ${ms} ms`), true);
  }

  /** Ends a call whose caller waits no more. */
  #release(call: Call, outcome: Outcome, error: unknown, expired: boolean): void {
    const { connection } = call;
    this.settle(call, outcome, error);
    connection?.giveUp(call, expired);
  }

  /**
   * A call whose connection has gone may go on another one: after the server's last goodbye it was never begun, so that
   * does no harm; else within the budget for retries, once, when its caller allows it.
   */
  #afterwards(call: Call, eviction: Eviction): Afterwards {
    if (this.#ending) return "fails";
    if (eviction === "goodbye") {
      this.counters.moved += 1;
      call.again = true;
      return "again";
    }
    if (call.again || call.options.idempotent !== true || this.settings.retryShare === 0) return "fails";
    if (!this.#retries.spend()) {
      this.counters.retriesRefused += 1;
      return "fails";
    }
    this.counters.retried += 1;
    call.again = true;
    return "again";
  }

  // ---- the end ----

  async #end(graceMs: number): Promise<void> {
    if (this.#deadlines.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        this.#emptied = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#shut();
    if (!this.#engine) return;
    this.#engine.flush();
    leaveEngine(this.#engine, this);
    this.#engine = undefined;
  }

  #shut(): void {
    this.#ending = true;
    for (const target of this.#targets) target.close();
    for (let call = this.#waiting.first; call; call = this.#waiting.first) {
      this.settle(call, "client-closed", closedError(this.name));
    }
  }
}

const hasRoom = (target: Target): boolean => target.room > 0;
const roomOf = (target: Target): number => target.room;
const idleOf = (target: Target): number => target.idle;
const connectingOf = (target: Target): number => target.connecting;
const sizeOf = (target: Target): number => target.size;

function closedError(name: string): HeadraceError {
  return new HeadraceError("client-closed", `the client ${name} is closed`, { given: name });
}
