/** Says in the log, at most once a second, how many requests came without the right token, and from where the last. */
import type { Logger } from "../base/log.ts";

const INTERVAL_MS = 1_000;

export class UnauthorizedLog {
  readonly #log: Logger;
  readonly #counted: () => void;
  #untold = 0;
  #lastFrom = "";
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Logger, counted: () => void) {
    this.#log = log;
    this.#counted = counted;
  }

  count(from: string): void {
    this.#counted();
    this.#untold += 1;
    this.#lastFrom = from;
    if (this.#timer) return;
    this.#tell();
    this.#timer = setInterval(() => this.#tell(), INTERVAL_MS);
    this.#timer.unref();
  }

  /** Says what was not said yet. */
  end(): void {
    if (this.#untold > 0) this.#tell();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tell(): void {
    if (this.#untold === 0) {
      this.end();
      return;
    }
    const refused = this.#untold;
    this.#untold = 0;
    this.#log.warn({ refused, from: this.#lastFrom }, `admin: ${refused} requests without the right token`);
  }
}
