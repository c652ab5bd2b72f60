/**
 * The one place where a worker decides whether a request is begun. While all is well a message costs two comparisons
 * (`alerts`, `inFlight`); what is asked beyond them is asked only while something is over its bound.
 *
 * What the requests cannot be held against one by one (a late event loop, memory) is answered with a share: so much of
 * what arrives is refused, of the lowest priority first. Who watches the worker sets the share (src/worker/shedding.ts).
 */
import type { BusyCause } from "../base/errors.ts";
import { PRIORITIES } from "../tasks/queue.ts";

/** Of `limits.inFlightPerWorker`, what requests of each rank may fill: the last tenths are for those above. */
export const IN_FLIGHT_SHARES: readonly number[] = [1, 0.9, 0.8];

export class Gate {
  /** Requests that run in this worker: handlers whose promise is not settled. */
  inFlight = 0;
  /** How many things are over their bound: pools, and the share. 0: only `inFlight` is looked at. */
  alerts = 0;
  #share = 0;
  #because: BusyCause = "loop-delay";
  /** By rank: requests since the last `share`, what of them is refused, and the fraction that is owed. */
  readonly #seen = PRIORITIES.map(() => 0);
  readonly #parts = PRIORITIES.map(() => 0);
  readonly #owed = PRIORITIES.map(() => 0);

  get shared(): number {
    return this.#share;
  }

  /** From now on this share (0 to 1) of all requests is refused. To be called again and again while it is not 0. */
  share(share: number, because: BusyCause): void {
    if (share > 0 !== this.#share > 0) this.alerts += share > 0 ? 1 : -1;
    this.#share = share;
    this.#because = because;
    this.#divide();
  }

  /** Whether the share wants this request refused: evenly spread, without chance. */
  refuses(rank: number): BusyCause | undefined {
    if (this.#share === 0) return undefined;
    this.#seen[rank] = (this.#seen[rank] as number) + 1;
    const owed = (this.#owed[rank] as number) + (this.#parts[rank] as number);
    this.#owed[rank] = owed < 1 ? owed : owed - 1;
    return owed < 1 ? undefined : this.#because;
  }

  /** The whole share from the lowest rank, as far as that goes; as much came of each as since the last time. */
  #divide(): void {
    const all = this.#seen.reduce((sum, count) => sum + count, 0);
    let due = this.#share * all;
    for (let rank = PRIORITIES.length - 1; rank >= 0; rank--) {
      const count = this.#seen[rank] as number;
      if (all === 0) this.#parts[rank] = this.#share;
      else if (count > 0) this.#parts[rank] = Math.min(1, due / count);
      else this.#parts[rank] = due > 0 ? 1 : 0;
      due = Math.max(0, due - count);
      this.#seen[rank] = 0;
    }
  }
}
