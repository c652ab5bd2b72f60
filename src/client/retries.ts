/**
 * How many calls may be sent again: a part of all calls, saved up to a few. So a server that loses connections is never
 * asked much more often than its clients want to.
 */

const SAVED_MOST = 10;

export class RetryBudget {
  readonly #share: number;
  #saved = 0;

  /** `share` of all calls, 0 to 1. */
  constructor(share: number) {
    this.#share = share;
  }

  earn(): void {
    this.#saved = Math.min(SAVED_MOST, this.#saved + this.#share);
  }

  /** False: there is nothing left. */
  spend(): boolean {
    if (this.#saved < 1) return false;
    this.#saved -= 1;
    return true;
  }
}
