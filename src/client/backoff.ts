/** How long a target that could not be reached is left alone: twice as long after each further failure, with a lot. */

const FIRST_MS = 100;
const JITTER = 0.2;

export class ConnectBackoff {
  readonly #longestMs: number;
  #failures = 0;
  /** Engine clock, ms. */
  #untilMs = 0;

  constructor(longestMs: number) {
    this.#longestMs = longestMs;
  }

  /** Failures in a row. */
  get failures(): number {
    return this.#failures;
  }

  /** 0: it may be tried now. */
  pauseMs(now: number): number {
    return Math.max(0, this.#untilMs - now);
  }

  failed(now: number): void {
    const pause = Math.min(this.#longestMs, FIRST_MS * 2 ** Math.min(this.#failures, 20));
    this.#failures += 1;
    this.#untilMs = now + pause * (1 - JITTER + 2 * JITTER * Math.random());
  }

  /** It has answered. */
  succeeded(): void {
    this.#failures = 0;
    this.#untilMs = 0;
  }
}
