/** Connections that must come to something in time: to be open, or (churn) to be done. The oldest stands first. */
import { constants } from "node:os";
import type { Client } from "./client.ts";
import type { Tally } from "./tally.ts";

export class Deadlines {
  readonly #watched = new Set<Client>();
  readonly #timeoutMs: number;
  readonly #tally: Tally;

  constructor(timeoutMs: number, tally: Tally) {
    this.#timeoutMs = timeoutMs;
    this.#tally = tally;
  }

  get size(): number {
    return this.#watched.size;
  }

  /** Counts from the client's `startedAt`. */
  watch(client: Client): void {
    this.#watched.add(client);
  }

  unwatch(client: Client): void {
    this.#watched.delete(client);
  }

  /** Ends those whose time is up: an unfinished connect has failed, an open one loses its reply. `time`: RoundClock ms. */
  expire(time: number): void {
    for (const client of this.#watched) {
      if (client.startedAt + this.#timeoutMs > time) return;
      if (client.phase === "connecting") this.#tally.count(this.#tally.failed, constants.errno.ETIMEDOUT);
      client.end("reset");
    }
  }

  /** Ends all that are still connecting, uncounted: the run is over. */
  abandon(): void {
    for (const client of this.#watched) {
      if (client.phase !== "connecting") continue;
      this.#tally.requested -= 1;
      client.end("reset");
    }
  }
}
