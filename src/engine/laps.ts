/**
 * The clock by which requests are timed: fine-grained, ms since some moment, and dear (40 ns). So it is read once for a
 * request: within a round, where one ends the next begins. Who spends time in a round on something else says `forget`;
 * between rounds nothing is kept, and whoever begins reads anew.
 */

export class Laps {
  readonly #read: () => number;
  /** When the last one ended, in this round; 0: nobody knows. In memory that takes a number without allocating. */
  readonly #ended = new Float64Array(1);
  #running = false;

  constructor(read: () => number = () => performance.now()) {
    this.#read = read;
  }

  /** A round begins. */
  start(): void {
    this.#running = true;
    this.#ended[0] = this.#read();
  }

  /** It is over. */
  stop(): void {
    this.#running = false;
    this.#ended[0] = 0;
  }

  now(): number {
    return this.#read();
  }

  /** When what is about to be done began. */
  begin(): number {
    return (this.#ended[0] as number) || this.#read();
  }

  /** It is done: returns when, and the next one begins. */
  end(): number {
    const now = this.#read();
    if (this.#running) this.#ended[0] = now;
    return now;
  }

  /** Whatever was done since the last end was no request. */
  forget(): void {
    this.#ended[0] = 0;
  }
}
