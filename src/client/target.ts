/**
 * One target of a client: its connections, the attempts to make more of them, and how long it is left alone when that
 * fails. It decides nothing about calls: the pool asks it for a connection that has room, or to open one.
 */
import type { ConnectFailed, HeadraceError } from "../base/errors.ts";
import type { Engine } from "../engine/engine.ts";
import type { Addresses } from "./addresses.ts";
import { Attempt } from "./attempt.ts";
import { ConnectBackoff } from "./backoff.ts";
import type { Call } from "./call.ts";
import { type Home, PooledConnection } from "./connection.ts";
import type { ClientCounters, Eviction, Outcome } from "./counters.ts";
import type { Exchange } from "./exchange.ts";
import type { ClientSettings } from "./settings.ts";
import type { ClientTls } from "./tls.ts";

/** The pool, as its targets see it. */
export interface Pool {
  readonly engine: Engine;
  readonly settings: ClientSettings;
  readonly counters: ClientCounters;
  makeExchange(): Exchange;
  settle(call: Call, outcome: Outcome, value: unknown): void;
  /** Whether a connection has room may have changed. */
  changed(target: Target, connection: PooledConnection): void;
  /** One has closed; `calls` were under way on it. */
  lost(calls: readonly Call[], eviction: Eviction, error: HeadraceError): void;
  /** An attempt has failed. */
  failed(): void;
}

export interface TargetOptions {
  readonly text: string;
  readonly port: number;
  readonly addresses: Addresses;
  readonly tls: ClientTls | undefined;
}

export interface TargetStats {
  readonly target: string;
  readonly state: "up" | "backing-off";
  readonly addresses: readonly string[];
  readonly connections: number;
  readonly idle: number;
  readonly connecting: number;
  readonly inFlight: number;
}

/** Ends of a connection that say something about the target when it was asked something, and had never answered. */
const ITS_FAULT: ReadonlySet<Eviction> = new Set(["peer-closed", "peer-reset", "io-error", "protocol-error"]);

export class Target implements Home {
  readonly text: string;
  readonly tls: ClientTls | undefined;
  inFlight = 0;
  lastFailure: ConnectFailed | undefined;
  readonly #pool: Pool;
  readonly #port: number;
  readonly #addresses: Addresses;
  readonly #backoff: ConnectBackoff;
  readonly #attempts = new Set<Attempt>();
  readonly #connections = new Set<PooledConnection>();
  /** Those that have room, the one that served last at the end. */
  readonly #ready: PooledConnection[] = [];

  constructor(pool: Pool, { text, port, addresses, tls }: TargetOptions) {
    this.#pool = pool;
    this.text = text;
    this.#port = port;
    this.#addresses = addresses;
    this.tls = tls;
    this.#backoff = new ConnectBackoff(pool.settings.backoffMs);
  }

  get engine(): Engine {
    return this.#pool.engine;
  }

  get settings(): ClientSettings {
    return this.#pool.settings;
  }

  get load(): number {
    return this.inFlight + this.#attempts.size;
  }

  get connecting(): number {
    return this.#attempts.size;
  }

  /** Connections, and those that are about to be. */
  get size(): number {
    return this.#connections.size + this.#attempts.size;
  }

  /** At most so many are idle. */
  get room(): number {
    return this.#ready.length;
  }

  get idle(): number {
    let count = 0;
    for (const connection of this.#ready) if (connection.quiet) count += 1;
    return count;
  }

  /** A target that has failed is tried by one connection at a time. */
  get mayOpen(): boolean {
    if (this.size >= this.settings.connectionsPerTarget) return false;
    const { failures } = this.#backoff;
    return failures === 0 || (this.#attempts.size === 0 && this.pauseMs === 0);
  }

  /** So long it is left alone. */
  get pauseMs(): number {
    return this.#backoff.pauseMs(performance.now());
  }

  open(): void {
    const attempt: Attempt = new Attempt({
      target: this.text,
      port: this.#port,
      addresses: this.#addresses,
      connectMs: this.settings.connectMs,
      counters: this.#pool.counters,
      make: (address) => new PooledConnection(this, attempt, address, this.#pool.makeExchange()),
      done: (connection) => this.#opened(attempt, connection),
      failed: (error) => this.#failed(attempt, error),
    });
    this.#attempts.add(attempt);
    attempt.start();
  }

  /** One that has room and is fit to serve: with several, the one with the fewest calls. */
  take(): PooledConnection | undefined {
    const best = this.#best();
    if (!best || this.#isFit(best)) return best;
    return this.#ready.toReversed().find((other) => !other.closed && this.#isFit(other));
  }

  /** Closes what nobody has used for so long. `now`: engine clock, ms. */
  reap(now: number): void {
    const { idleMs } = this.settings;
    for (const connection of this.#ready.filter((one) => one.quiet && now - one.idleSince >= idleMs)) {
      connection.end("idle");
    }
  }

  /** Closes idle connections, those that have been idle longest first, down to `most`. */
  trim(most: number): void {
    const quiet = this.#ready.filter((connection) => connection.quiet);
    for (const connection of quiet.slice(0, Math.max(0, quiet.length - most))) connection.end("surplus");
  }

  /** Ends attempts and connections. */
  close(): void {
    for (const attempt of this.#attempts) attempt.stop();
    this.#attempts.clear();
    for (const connection of this.#connections) connection.end("closing");
  }

  stats(): TargetStats {
    return {
      target: this.text,
      state: this.pauseMs > 0 ? "backing-off" : "up",
      addresses: this.#addresses.known,
      connections: this.#connections.size,
      idle: this.idle,
      connecting: this.connecting,
      inFlight: this.inFlight,
    };
  }

  // ---- what its connections say ----

  settle(call: Call, outcome: Outcome, value: unknown): void {
    this.#pool.settle(call, outcome, value);
  }

  late(): void {
    this.#pool.counters.late += 1;
  }

  filled(connection: PooledConnection): void {
    if (!connection.hasRoom) this.#list(connection);
  }

  changed(connection: PooledConnection): void {
    if (connection.proven && this.#backoff.failures > 0) this.#backoff.succeeded();
    this.#list(connection);
    this.#pool.changed(this, connection);
  }

  gone(connection: PooledConnection, eviction: Eviction, calls: readonly Call[], error: HeadraceError): void {
    this.#connections.delete(connection);
    this.#list(connection);
    this.#pool.counters.evicted[eviction] += 1;
    const { asked, proven } = connection;
    if (asked && !proven && ITS_FAULT.has(eviction)) this.#backoff.failed(performance.now());
    this.#pool.lost(calls, eviction, error);
  }

  #list(connection: PooledConnection): void {
    const { hasRoom, listed } = connection;
    if (hasRoom === listed) return;
    connection.listed = hasRoom;
    if (hasRoom) this.#ready.push(connection);
    // The one that served last is the one that mostly goes.
    else this.#ready.splice(this.#ready.lastIndexOf(connection), 1);
  }

  #best(): PooledConnection | undefined {
    const ready = this.#ready;
    let best = ready.at(-1);
    if (!best || best.exchange.capacity === 1) return best;
    for (const other of ready) if (other.exchange.inFlight < best.exchange.inFlight) best = other;
    return best;
  }

  #isFit(connection: PooledConnection): boolean {
    const verdict = connection.check();
    if (verdict === "unfit") this.#pool.counters.unhealthy += 1;
    return verdict === "fit";
  }

  #opened(attempt: Attempt, connection: PooledConnection): void {
    this.#attempts.delete(attempt);
    this.#connections.add(connection);
    this.#pool.counters.opened += 1;
    this.changed(connection);
  }

  #failed(attempt: Attempt, error: ConnectFailed): void {
    this.#attempts.delete(attempt);
    this.lastFailure = error;
    this.#backoff.failed(performance.now());
    this.#pool.failed();
  }
}
