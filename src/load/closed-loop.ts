/**
 * The closed loop: each connection keeps `pipeline` messages in flight and sends the next when a reply comes. It finds
 * the highest throughput. Its latencies flatter a server that stalls: while nothing comes back nothing is sent, so a
 * stall counts once per connection and not once per message that should have been sent (see open-loop.ts).
 */
import type { Client } from "./client.ts";
import type { Load, Traffic } from "./load.ts";

export class ClosedLoop implements Traffic {
  readonly #load: Load;
  readonly #clients: readonly Client[];
  readonly #pipeline: number;
  /** When each message in flight was sent: `pipeline` places per connection, used in turn. */
  readonly #sentAt: Float64Array;
  #running = false;
  #stopped = false;

  constructor(load: Load, clients: readonly Client[]) {
    this.#load = load;
    this.#clients = clients;
    this.#pipeline = load.share.pipeline;
    this.#sentAt = new Float64Array(clients.length * this.#pipeline);
  }

  opened(client: Client): void {
    if (!this.#stopped) this.#send(client, this.#load.clock.now());
  }

  replied(client: Client, sequence: number, time: number): void {
    if (!this.#stopped) this.#load.latencies.record(time - (this.#sentAt[this.#place(client, sequence)] as number));
    if (this.#running) this.#send(client, time);
  }

  go(): void {
    this.#running = true;
    const time = this.#load.clock.fresh();
    for (const client of this.#clients) {
      while (client.phase === "open" && client.sent - client.received < this.#pipeline) this.#send(client, time);
    }
  }

  stop(): void {
    this.#running = false;
    this.#stopped = true;
  }

  #place(client: Client, sequence: number): number {
    return client.index * this.#pipeline + (sequence % this.#pipeline);
  }

  #send(client: Client, time: number): void {
    this.#sentAt[this.#place(client, client.sent)] = time;
    client.send();
  }
}
