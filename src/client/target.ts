/**
 * One target of a client: its connections, the attempts to make more of them, and how long to leave it alone when that
 * fails. It decides nothing about calls: the pool asks it for a connection that has room, or to open one.
 */
import type { ConnectFailed } from "../base/errors.ts";
import { Addresses, type Resolve } from "./addresses.ts";
import { Attempt } from "./attempt.ts";
import { ConnectBackoff } from "./backoff.ts";
import { type Home, PooledConnection } from "./connection.ts";
import type { ClientCounters, Eviction } from "./counters.ts";
import type { Exchange } from "./exchange.ts";
import type { ClientSettings } from "./settings.ts";

export interface TargetAddress {
  /** As given. */
  readonly text: string;
  readonly host: string;
  readonly port: number;
}

export interface TargetOptions {
  readonly address: TargetAddress;
  readonly settings: ClientSettings;
  readonly counters: ClientCounters;
  readonly resolve: Resolve;
  readonly home: Home;
  makeExchange(): Exchange;
  /** A connection has joined; or none did. */
  opened(connection: PooledConnection): void;
  failed(target: Target): void;
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

/** Ends of a connection that say something about the target when it had never answered on it. */
const ITS_FAULT: ReadonlySet<Eviction> = new Set(["peer-closed", "peer-reset", "io-error", "protocol-error", "silent"]);

export class Target {
  readonly text: string;
  readonly connections = new Set<PooledConnection>();
  /** Calls under way. */
  inFlight = 0;
  lastFailure: ConnectFailed | undefined;
  readonly #options: TargetOptions;
  readonly #addresses: Addresses;
  readonly #backoff: ConnectBackoff;
  readonly #attempts = new Set<Attempt>();
  /** Those that have room, the one that served last at the end. */
  readonly #ready: PooledConnection[] = [];

  constructor(options: TargetOptions) {
    const { address, settings, resolve, counters } = options;
    this.text = address.text;
    this.#options = options;
    this.#addresses = new Addresses(address.host, resolve, settings.resolveMs, counters);
    this.#backoff = new ConnectBackoff(settings.backoffMs);
  }

  get load(): number {
    return this.inFlight + this.#attempts.size;
  }

  get connecting(): number {
    return this.#attempts.size;
  }

  get hasReady(): boolean {
    return this.#ready.length > 0;
  }

  get size(): number {
    return this.connections.size + this.#attempts.size;
  }

  /** A target that has failed is tried by one connection at a time. */
  mayOpen(now: number): boolean {
    if (this.size >= this.#options.settings.connectionsPerTarget) return false;
    if (this.#backoff.failures > 0 && this.#attempts.size > 0) return false;
    return this.#backoff.pauseMs(now) === 0;
  }

  pauseMs(now: number): number {
    return this.#backoff.pauseMs(now);
  }

  open(): void {
    const { address, settings, counters, home, makeExchange } = this.#options;
    const attempt = new Attempt({
      target: this.text,
      port: address.port,
      addresses: this.#addresses,
      connectMs: settings.connectMs,
      counters,
      make: (connecting, text) => new PooledConnection(home, connecting, text, makeExchange()),
      done: (it, connection) => this.#opened(it, connection),
      failed: (it, error) => this.#failed(it, error),
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

  /** Whether it has room has changed. */
  changed(connection: PooledConnection): void {
    const at = this.#ready.indexOf(connection);
    if (connection.proven && this.#backoff.failures > 0) this.#backoff.succeeded();
    if (!connection.hasRoom) {
      if (at >= 0) this.#ready.splice(at, 1);
    } else if (at < 0) {
      this.#ready.push(connection);
    }
  }

  gone(connection: PooledConnection, eviction: Eviction): void {
    this.connections.delete(connection);
    this.changed(connection);
    if (!connection.proven && ITS_FAULT.has(eviction)) this.#backoff.failed(performance.now());
    else if (eviction === "silent") this.#backoff.failed(performance.now());
  }

  /** Closes what nobody has used for so long. */
  reap(now: number): void {
    const { idleMs } = this.#options.settings;
    for (const connection of this.#ready.filter((one) => one.quiet && now - one.idleSince >= idleMs)) {
      connection.end("idle");
    }
  }

  get idle(): number {
    let count = 0;
    for (const connection of this.#ready) if (connection.quiet) count += 1;
    return count;
  }

  /** Closes its idle connections, those that have been idle longest first, down to `most`. */
  trim(most: number): void {
    const quiet = this.#ready.filter((connection) => connection.quiet);
    for (const connection of quiet.slice(0, Math.max(0, quiet.length - most))) connection.end("surplus");
  }

  /** Ends its attempts and its quiet connections; `all`: the others too. */
  close(all: boolean): void {
    for (const attempt of this.#attempts) attempt.stop();
    this.#attempts.clear();
    for (const connection of this.connections) if (all || connection.quiet) connection.end("closing");
  }

  stats(now: number): TargetStats {
    return {
      target: this.text,
      state: this.pauseMs(now) > 0 ? "backing-off" : "up",
      addresses: this.#addresses.known,
      connections: this.connections.size,
      idle: this.idle,
      connecting: this.connecting,
      inFlight: this.inFlight,
    };
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
    if (verdict === "unfit") this.#options.counters.unhealthy += 1;
    return verdict === "fit";
  }

  #opened(attempt: Attempt, connection: PooledConnection): void {
    this.#attempts.delete(attempt);
    this.connections.add(connection);
    this.#options.counters.opened += 1;
    this.#options.opened(connection);
  }

  #failed(attempt: Attempt, error: ConnectFailed): void {
    this.#attempts.delete(attempt);
    this.lastFailure = error;
    this.#backoff.failed(performance.now());
    this.#options.failed(this);
  }
}
