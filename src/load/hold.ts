/** The `hold` mode: one message on every connection, and nothing more. */
import type { Client } from "./client.ts";
import type { Load, Traffic } from "./load.ts";

export class Hold implements Traffic {
  readonly #load: Load;
  #stopped = false;

  constructor(load: Load) {
    this.#load = load;
  }

  opened(client: Client): void {
    if (!this.#stopped) client.send();
  }

  replied(client: Client, _sequence: number, time: number): void {
    this.#load.latencies.record(time - client.startedAt);
  }

  go(): void {}

  stop(): void {
    this.#stopped = true;
  }
}
