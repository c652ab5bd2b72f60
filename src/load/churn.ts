/**
 * The churn: connect, one message, verify, close, and the next; `connections` of them at once. The latency is that of
 * the whole: from the connect to the verified reply. A connection that fails is followed by another a moment later,
 * so that a server that refuses everybody is not answered with a busy loop.
 */
import { Client } from "./client.ts";
import type { Connector } from "./connector.ts";
import type { Load, Traffic } from "./load.ts";

export class Churn implements Traffic {
  readonly #load: Load;
  readonly #connector: Connector;
  #running = false;
  #stopped = false;
  /** Places whose last connection failed. */
  #resting = 0;
  #begun = 0;

  constructor(load: Load, connector: Connector) {
    this.#load = load;
    this.#connector = connector;
  }

  opened(client: Client): void {
    if (!this.#stopped) client.send();
    else client.end(this.#load.share.close);
  }

  replied(client: Client, _sequence: number, time: number): void {
    if (!this.#stopped) this.#load.latencies.record(time - client.startedAt);
    client.end(this.#load.share.close);
  }

  gone(client: Client): void {
    this.#connector.deadlines.unwatch(client);
    if (client.received > 0) this.#begin();
    else this.#resting += 1;
  }

  go(): void {
    this.#running = true;
    for (let i = 0; i < this.#load.share.connections; i++) this.#begin();
  }

  stop(): void {
    this.#running = false;
    this.#stopped = true;
  }

  tick(time: number): void {
    this.#connector.deadlines.expire(time);
    for (let left = this.#resting; left > 0; left--) {
      this.#resting -= 1;
      this.#begin();
    }
  }

  #begin(): void {
    if (!this.#running) return;
    const { first, connections, all } = this.#load.share;
    // Unique over all processes: each has its own places in every turn.
    const number = first + (this.#begun % connections) + Math.floor(this.#begun / connections) * all;
    this.#begun += 1;
    if (!this.#connector.connect(new Client(this.#load, number, 0))) this.#resting += 1;
  }
}
