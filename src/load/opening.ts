/**
 * Opens the connections of a process: at the rate asked for, or as fast as they are accepted with a bounded number
 * undecided. Done when every one is open or has failed. When none gets open for as long as one may take, the rest is
 * not tried: a server that answers nobody must not hold the run up for hours.
 */
import { constants } from "node:os";
import type { Client } from "./client.ts";
import type { Connector } from "./connector.ts";
import type { Load } from "./load.ts";

/** How often a rate is kept up with, ms. */
const PACE_MS = 2;

export class Opening {
  /** Settles when every connect is decided. */
  readonly done: Promise<void>;
  readonly #load: Load;
  readonly #connector: Connector;
  readonly #clients: readonly Client[];
  readonly #resolve: () => void;
  #next = 0;
  #startedAt = 0;
  #progressAt = 0;
  #pace: NodeJS.Timeout | undefined;

  constructor(load: Load, connector: Connector, clients: readonly Client[]) {
    this.#load = load;
    this.#connector = connector;
    this.#clients = clients;
    const { promise, resolve } = withResolvers();
    this.done = promise;
    this.#resolve = resolve;
  }

  start(): void {
    this.#startedAt = this.#progressAt = this.#load.clock.fresh();
    if (this.#load.share.connectsPerSecond !== undefined) this.#pace = setInterval(() => this.#more(), PACE_MS);
    this.#more();
  }

  /** A connect was decided. */
  decided(client: Client): void {
    this.#connector.deadlines.unwatch(client);
    if (client.phase === "open") this.#progressAt = this.#load.clock.now();
    this.#more();
  }

  /** About every 50 ms. `time`: RoundClock ms. */
  tick(time: number): void {
    this.#connector.deadlines.expire(time);
    const { tally, share } = this.#load;
    while (this.#next < this.#clients.length && time > this.#progressAt + share.timeoutMs) {
      this.#next += 1;
      tally.requested += 1;
      tally.count(tally.failed, constants.errno.ETIMEDOUT);
    }
    this.#settle();
  }

  /** Begins no more. */
  stop(): void {
    this.#next = this.#clients.length;
    this.#connector.deadlines.abandon();
    this.#settle();
  }

  #allowed(): number {
    const { share, clock } = this.#load;
    if (share.connectsPerSecond === undefined) return this.#clients.length;
    const seconds = (clock.fresh() - this.#startedAt) / 1000;
    return Math.min(this.#clients.length, Math.floor(seconds * share.connectsPerSecond) + 1);
  }

  #more(): void {
    const allowed = this.#allowed();
    const { deadlines } = this.#connector;
    while (this.#next < allowed && deadlines.size < this.#load.share.pending) {
      this.#connector.connect(this.#clients[this.#next++] as Client);
    }
    this.#settle();
  }

  #settle(): void {
    if (this.#next < this.#clients.length || this.#connector.deadlines.size > 0) return;
    clearInterval(this.#pace);
    this.#resolve();
  }
}

/** Promise.withResolvers, which Node 20 does not have. */
function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
