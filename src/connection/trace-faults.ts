/**
 * What tracing itself does wrong: the SDK, its processors and its exporters are the user's, and whatever they throw is
 * no request's concern. It is said once a minute for each listener; what is said besides is only counted.
 */
import type { Logger } from "../base/log.ts";

const SILENCE_MS = 60_000;

export class TraceFaults {
  readonly #log: Logger;
  #saidAt = Number.NEGATIVE_INFINITY;
  #unsaid = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Never throws. */
  note(error: unknown): void {
    this.#unsaid += 1;
    const now = performance.now();
    if (now - this.#saidAt < SILENCE_MS) return;
    const count = this.#unsaid;
    this.#saidAt = now;
    this.#unsaid = 0;
    try {
      this.#log.error({ err: error, count }, "tracing has failed: what takes the spans has thrown an error");
    } catch {
      // An error that cannot even be printed.
    }
  }
}
