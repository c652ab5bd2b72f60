/**
 * A client at work: calls on one side, the connections of its targets on the other. A call gets a connection that has
 * room, or waits in one line with all others, first come first served, whichever target has room next. Nothing here
 * waits without a deadline, and a call ends once, in `settle`.
 */
import { ConnectFailed, DeadlineExceeded, HeadraceError, ServerBusy } from "../base/errors.ts";
import type { Engine } from "../engine/engine.ts";
import { sharedEngine } from "../engine/shared.ts";
import type { CallOptions, Cancellable } from "../service/call.ts";
import type { Resolve } from "./addresses.ts";
import { Call } from "./call.ts";
import { choose } from "./choose.ts";
import type { Home, PooledConnection } from "./connection.ts";
import { ClientCounters, type ClientCounts, type Eviction, type Outcome } from "./counters.ts";
import { CallDeadlines } from "./deadlines.ts";
import type { Exchange } from "./exchange.ts";
import { RetryBudget } from "./retries.ts";
import type { ClientSettings } from "./settings.ts";
import { Target, type TargetAddress, type TargetStats } from "./target.ts";
import { WaitingCalls } from "./waiting.ts";

export interface PoolOptions {
  readonly name: string;
  readonly targets: readonly TargetAddress[];
  readonly settings: ClientSettings;
  readonly resolve: Resolve;
  makeExchange(): Exchange;
}

export interface ClientStats {
  readonly name: string;
  readonly targets: readonly TargetStats[];
  /** Calls that wait for a connection. */
  readonly waiting: number;
  /** Calls that have not ended. */
  readonly calls: number;
  readonly counts: ClientCounts;
}

export class ConnectionPool implements Home {
  readonly name: string;
  readonly settings: ClientSettings;
  readonly counters: ClientCounters = new ClientCounters();
  readonly #targets: readonly Target[];
  readonly #waiting = new WaitingCalls();
  readonly #deadlines = new CallDeadlines((call) => this.#expire(call));
  readonly #retries: RetryBudget;
  #engine: Engine | undefined;
  /** No connection is opened any more. */
  #ending = false;
  #closed: Promise<void> | undefined;
  #emptied: () => void = () => {};

  constructor({ name, targets, settings, resolve, makeExchange }: PoolOptions) {
    this.name = name;
    this.settings = settings;
    this.#retries = new RetryBudget(settings.retryShare);
    this.#targets = targets.map(
      (address) =>
        new Target({
          address,
          settings,
          counters: this.counters,
          resolve,
          home: this,
          makeExchange,
          opened: (connection) => this.#opened(connection),
          failed: () => this.#demand(),
        }),
    );
  }

  /** Throws `engine-thread` off the main thread. */
  get engine(): Engine {
    if (this.#engine) return this.#engine;
    const engine = sharedEngine();
    this.#engine = engine;
    engine.onTick(() => {
      if (this.#engine === engine) this.#tick();
    });
    engine.onShutdown(() => this.#lostEngine(engine));
    return engine;
  }

  /** Never throws; see `Client.call` for what it rejects with. */
  call(message: unknown, options: CallOptions, leftMs: number, held: Set<Cancellable> | undefined): Promise<unknown> {
    const now = performance.now();
    const timeoutMs = Math.min(options.timeoutMs ?? this.settings.callMs, leftMs);
    const call = new Call(this, message, options, now, timeoutMs, held);
    this.counters.calls += 1;
    this.#retries.earn();
    const refused = this.#refusal(call);
    if (refused) {
      this.settle(call, ...refused);
      return call.promise;
    }
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
    const now = performance.now();
    return {
      name: this.name,
      targets: this.#targets.map((target) => target.stats(now)),
      waiting: this.#waiting.size,
      calls: this.#deadlines.size,
      counts: this.counters.snapshot(),
    };
  }

  // ---- what connections say ----

  settle(call: Call, outcome: Outcome, value: unknown): void {
    if (call.ended) return;
    this.#deadlines.remove(call);
    this.#waiting.remove(call);
    this.counters.end(outcome, performance.now() - call.startedAt);
    if (outcome === "ok") call.resolve(value);
    else call.reject(value);
    if (this.#deadlines.size === 0) this.#emptied();
  }

  late(): void {
    this.counters.late += 1;
  }

  busier(connection: PooledConnection, by: number): void {
    this.#targetOf(connection).inFlight += by;
  }

  changed(connection: PooledConnection): void {
    const target = this.#targetOf(connection);
    target.changed(connection);
    this.#feed(connection);
    if (connection.closed || !connection.quiet) return;
    const { idle, idlePerTarget } = this.settings;
    if (this.#ending) connection.end("closing");
    else if (target.idle > idlePerTarget) target.trim(idlePerTarget);
    else if (this.#idle > idle) target.trim(target.idle - 1);
  }

  gone(connection: PooledConnection, eviction: Eviction, calls: readonly Call[], error: HeadraceError): void {
    this.counters.evicted[eviction] += 1;
    this.#targetOf(connection).gone(connection, eviction);
    // The first of them goes to the front last.
    for (const call of calls.toReversed()) {
      if (this.#sendAgain(call, eviction)) this.#waiting.prepend(call);
      else this.settle(call, error.code === "reply-invalid" ? "reply-invalid" : lostOutcome(eviction), error);
    }
    this.#demand();
  }

  // ---- calls ----

  /** Why it is not even begun. */
  #refusal(call: Call): [Outcome, unknown] | undefined {
    const { signal } = call.options;
    if (this.#closed) return ["client-closed", closedError(this.name)];
    if (signal?.aborted) return ["cancelled", signal.reason];
    if (!(call.deadlineAt > call.startedAt)) return ["deadline", new DeadlineExceeded(`${this.name}: no time is left`)];
    try {
      void this.engine;
    } catch (error) {
      return ["not-sent", error];
    }
    return undefined;
  }

  /** Sends it if some connection has room. A target that should have one and has none gets one meanwhile. */
  #place(call: Call): boolean {
    const now = performance.now();
    const wanted = choose(this.#targets, (target) => target.hasReady || this.#mayOpen(target, now));
    let connection = wanted?.take();
    if (wanted && !connection && wanted.connecting === 0 && this.#mayOpen(wanted, now)) wanted.open();
    connection ??= choose(this.#targets, (target) => target.hasReady)?.take();
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

  /** Opens as many connections as the calls that wait need. When there will be none, they fail. */
  #demand(): void {
    if (this.#ending) return;
    const now = performance.now();
    const capacity = this.settings.inFlight;
    let wanted = Math.ceil(this.#waiting.size / capacity);
    for (const target of this.#targets) wanted -= target.connecting;
    for (; wanted > 0; wanted--) {
      const target = choose(this.#targets, (one) => this.#mayOpen(one, now));
      if (!target) break;
      target.open();
    }
    if (wanted > 0 && this.#targets.every((target) => target.size === 0)) this.#failWaiting(now);
  }

  #failWaiting(now: number): void {
    const failures = this.#targets.flatMap(({ lastFailure }) => (lastFailure ? [lastFailure] : []));
    const pauses = this.#targets.map((target) => target.pauseMs(now));
    const text = `${this.name}: ${failures.map(({ message }) => message).join("; ") || "no target answers"}`;
    const again = `; tried again in ${Math.ceil(Math.min(...pauses))} ms`;
    const [last] = failures.slice(-1);
    const fields = last?.fields ?? { address: this.#targets.map((target) => target.text).join(", ") };
    for (let call = this.#waiting.first; call; call = this.#waiting.first) {
      this.settle(call, "connect-failed", new ConnectFailed(text + again, fields, last ? { cause: last } : {}));
    }
  }

  #mayOpen(target: Target, now: number): boolean {
    if (this.#ending || !target.mayOpen(now)) return false;
    let all = 0;
    for (const each of this.#targets) all += each.size;
    return all < this.settings.connections;
  }

  #expire(call: Call): void {
    const ms = Math.round(call.deadlineAt - call.startedAt);
    const what = call.connection
      ? `no reply from ${call.connection.address}`
      : `still waiting for a connection${this.#targets.some(({ connecting }) => connecting > 0) ? ", while connecting" : ""}`;
    const error = new DeadlineExceeded(`${this.name}: ${what} after ${ms} ms`);
    this.#release(call, "deadline", error, true);
  }

  /** Ends a call whose caller waits no more. */
  #release(call: Call, outcome: Outcome, error: unknown, expired: boolean): void {
    const { connection } = call;
    this.settle(call, outcome, error);
    connection?.giveUp(call, expired);
  }

  /**
   * Whether a call whose connection has gone goes on another one: when the server had said that it would not begin it
   * (that harms nobody), or within the budget for retries, when its caller allows it. Once, and while there is time.
   */
  #sendAgain(call: Call, eviction: Eviction): boolean {
    call.connection = undefined;
    if (this.#ending || eviction === "closing") return false;
    if (eviction === "goodbye") {
      this.counters.moved += 1;
      return true;
    }
    if (call.again || call.options.idempotent !== true || this.settings.retryShare === 0) return false;
    if (!this.#retries.spend()) {
      this.counters.retriesRefused += 1;
      return false;
    }
    this.counters.retried += 1;
    call.again = true;
    return true;
  }

  // ---- connections ----

  #opened(connection: PooledConnection): void {
    if (this.#ending) connection.end("closing");
    else this.changed(connection);
  }

  #targetOf(connection: PooledConnection): Target {
    return connection.target as Target;
  }

  get #idle(): number {
    return this.#targets.reduce((sum, target) => sum + target.idle, 0);
  }

  #tick(): void {
    const now = this.engine.now;
    for (const target of this.#targets) target.reap(now);
    // A pause may be over.
    if (this.#waiting.size > 0) this.#demand();
  }

  /** Its worker has stopped: what is under way is lost. */
  #lostEngine(engine: Engine): void {
    if (this.#engine !== engine) return;
    const ended = this.#ending;
    this.#ending = true;
    for (const target of this.#targets) target.close(true);
    this.#failAll();
    this.#ending = ended;
    this.#engine = undefined;
  }

  #failAll(): void {
    for (const call of this.#deadlines.all()) this.giveUp(call, closedError(this.name));
  }

  async #end(graceMs: number): Promise<void> {
    for (const target of this.#targets) target.closeIdle();
    if (this.#deadlines.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs);
        this.#emptied = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#ending = true;
    this.#failAll();
    for (const target of this.#targets) target.close(true);
    this.#engine?.flush();
  }
}

function lostOutcome(eviction: Eviction): Outcome {
  return eviction === "closing" ? "client-closed" : "connection-lost";
}

function closedError(name: string): HeadraceError {
  return new HeadraceError("client-closed", `the client ${name} is closed`, { given: name });
}
