/**
 * How many connections are told goodbye now, so that all of them are by the end of a time and each moment has its
 * share: thousands of clients that come back at once would be an attack on the workers that stay. Whoever leaves by
 * itself meanwhile, or comes late, is reckoned with.
 */
export class Farewell {
  readonly #endsAt: number;
  #at: number;
  /** Part of a goodbye that is owed. */
  #owed = 0;

  /** `now` and `forMs`: any clock, ms. */
  constructor(now: number, forMs: number) {
    this.#at = now;
    this.#endsAt = now + forMs;
  }

  /** Of `left` that stay; call it often. */
  due(left: number, now: number): number {
    const remaining = this.#endsAt - this.#at;
    const elapsed = now - this.#at;
    this.#at = now;
    if (now >= this.#endsAt) return left;
    this.#owed = Math.min(left, this.#owed + (left * elapsed) / remaining);
    const due = Math.floor(this.#owed);
    this.#owed -= due;
    return due;
  }
}
