/**
 * One attempt to connect to a target: its addresses in turn, the next one when the last has failed or is slow to answer,
 * all of them within one time limit. The first that connects wins; the others are dropped.
 */

import { formatAddress } from "../base/address.ts";
import { ConnectFailed, messageOf } from "../base/errors.ts";
import type { Addresses } from "./addresses.ts";
import type { Connecting, PooledConnection } from "./connection.ts";
import { type ClientCounters, connectFault } from "./counters.ts";

/** An address that has not answered for so long is left to itself, and the next one tried (RFC 8305 section 5), ms. */
const STAGGER_MS = 250;

export interface AttemptOptions {
  readonly target: string;
  readonly port: number;
  readonly addresses: Addresses;
  readonly connectMs: number;
  readonly counters: ClientCounters;
  /** A connection to be connected. */
  make(address: string): PooledConnection;
  /** One of the two, once, unless it is stopped. */
  done(connection: PooledConnection): void;
  failed(error: ConnectFailed): void;
}

export class Attempt implements Connecting {
  readonly #options: AttemptOptions;
  /** Those under way, and their hosts. */
  readonly #running = new Map<PooledConnection, string>();
  #hosts: readonly string[] = [];
  #next = 0;
  #ended = false;
  #limit: NodeJS.Timeout | undefined;
  #stagger: NodeJS.Timeout | undefined;

  constructor(options: AttemptOptions) {
    this.#options = options;
  }

  /** Nothing is reported before it returns. */
  start(): void {
    const { addresses, connectMs } = this.#options;
    this.#limit = setTimeout(() => this.#timeout(), connectMs).unref();
    // In a turn of its own: the caller counts on hearing of it later.
    void (async () => addresses.get())().then(
      (hosts) => this.#begin(hosts),
      (error: unknown) => this.#fail(codeOf(error), messageOf(error), error),
    );
  }

  /** Nobody needs it any more. */
  stop(): void {
    this.#ended = true;
    clearTimeout(this.#limit);
    clearTimeout(this.#stagger);
    for (const connection of this.#running.keys()) connection.drop();
    this.#running.clear();
  }

  connected(connection: PooledConnection): void {
    if (this.#ended) return;
    this.#options.addresses.worked(this.#running.get(connection) ?? "");
    this.#running.delete(connection);
    this.stop();
    this.#options.done(connection);
  }

  refused(connection: PooledConnection, problem: string, detail = ""): void {
    if (this.#ended) return;
    const host = this.#running.get(connection) ?? "";
    this.#running.delete(connection);
    this.#options.addresses.failed(host);
    this.#options.counters.addressFaults += 1;
    if (this.#next < this.#hosts.length) this.#tryNext();
    else if (this.#running.size === 0)
      this.#fail(problem, `${connection.address}: ${detail === "" ? problem : detail}`);
  }

  #begin(hosts: readonly string[]): void {
    if (this.#ended) return;
    this.#hosts = hosts;
    this.#tryNext();
  }

  #tryNext(): void {
    clearTimeout(this.#stagger);
    const host = this.#hosts[this.#next++];
    if (host === undefined) return;
    const { port, make } = this.#options;
    const connection = make(formatAddress(host, port));
    this.#running.set(connection, host);
    if (connection.connect(host, port) && this.#next < this.#hosts.length) {
      this.#stagger = setTimeout(() => this.#tryNext(), STAGGER_MS).unref();
    }
  }

  #timeout(): void {
    const { addresses, target, connectMs } = this.#options;
    for (const host of this.#running.values()) addresses.failed(host);
    const tried = this.#hosts.length === 0 ? "resolving its name" : [...this.#hosts].join(", ");
    this.#fail("ETIMEDOUT", `${target}: no answer within ${connectMs} ms (${tried})`);
  }

  #fail(problem: string, detail: string, cause?: unknown): void {
    if (this.#ended) return;
    this.stop();
    const { target, counters, failed } = this.#options;
    counters.connectFaults[connectFault(problem)] += 1;
    const fields = { address: target, errno: problem };
    failed(new ConnectFailed(`cannot connect to ${target}: ${detail}`, fields, cause === undefined ? {} : { cause }));
  }
}

function codeOf(error: unknown): string {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : "ENOTFOUND";
}
