/**
 * A clock that stands still while this process does: on a machine that is too busy the clients are kept from looking
 * just as the server is from answering, and such time is no server's fault. Only whether something *hangs* is judged by
 * it; latencies are as a client felt them.
 */

/** A timer that is later than this was kept waiting, ms. */
const LATE_MS = 10;

export class AwakeClock {
  readonly #everyMs: number;
  #last: number = performance.now();
  #asleepMs = 0;

  /** `everyMs`: how often `tick` is going to be called. */
  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** Monotonic, ms. */
  now(): number {
    return performance.now() - this.#asleepMs;
  }

  tick(): void {
    const now = performance.now();
    const lateMs = now - this.#last - this.#everyMs;
    if (lateMs > LATE_MS) this.#asleepMs += lateMs;
    this.#last = now;
  }
}
