/**
 * When a dead worker is replaced: at once, unless it keeps dying early. Only an end before it accepted, or within
 * EARLY_MS after, counts as a failed start; each one in a row doubles the pause.
 */

const EARLY_MS = 1_000;
const FIRST_MS = 100;
const LONGEST_MS = 30_000;
/** A worker that lived so long has proved that its start was sound. */
const SOUND_MS = 60_000;
/** While nobody else accepts there is no pause, but for a loop that would burn a CPU without end. */
const IMPATIENT_STARTS = 10;
const IMPATIENT_MS = 1_000;
const JITTER = 0.2;

export class Backoff {
  #failures = 0;
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Failed starts in a row. */
  get failures(): number {
    return this.#failures;
  }

  /** A worker has ended. `acceptedMs`: how long it had accepted; undefined when it never did. */
  ended(acceptedMs: number | undefined): void {
    if (acceptedMs === undefined || acceptedMs < EARLY_MS) this.#failures += 1;
    else if (acceptedMs >= SOUND_MS) this.#failures = 0;
  }

  /** Before the next start, ms. `alone`: no other worker accepts. */
  pauseMs(alone: boolean): number {
    if (this.#failures === 0) return 0;
    const doubled = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.#failures - 1, 20));
    const pause = doubled * (1 - JITTER + 2 * JITTER * this.#random());
    if (!alone) return pause;
    return this.#failures <= IMPATIENT_STARTS ? 0 : Math.min(pause, IMPATIENT_MS);
  }
}
