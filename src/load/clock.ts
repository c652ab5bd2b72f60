/**
 * Time at the price of one look per round. `performance.now()` costs 50 to 100 ns, as much as everything else this
 * generator does in JavaScript for a message, so all messages of a round share a stamp. A stamp is taken when the
 * round's bytes have been received and before its messages leave: what was received is stamped late, what is sent is
 * stamped early. So a latency is never flattered; it is overstated by at most the time of one round of the client
 * (microseconds when few connections are busy, about a millisecond when 512 are).
 */
import { TOTALS } from "../engine/layout.ts";
import { WORKER_FIELDS } from "../os/scoreboard.ts";

const ROUNDS = WORKER_FIELDS.indexOf("rounds");

export class RoundClock {
  /** Where the engine counts its rounds: hand it to the engine. */
  readonly totals: Float64Array = new Float64Array(TOTALS);
  #round = -1;
  #time = 0;

  /** Monotonic, ms: of the round that is running. */
  now(): number {
    const round = this.totals[ROUNDS] as number;
    if (round !== this.#round) {
      this.#round = round;
      this.#time = performance.now();
    }
    return this.#time;
  }

  /** The same clock, read now: for what happens between rounds. */
  fresh(): number {
    this.#round = this.totals[ROUNDS] as number;
    this.#time = performance.now();
    return this.#time;
  }
}
