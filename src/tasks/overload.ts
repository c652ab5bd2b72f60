/**
 * When a queue is overloaded, and how long a task may wait in it then. After CoDel (RFC 8289): not the length of a queue
 * says it, nor a burst that it takes up, but that for a whole interval every task has waited longer than the target.
 * From then on what has waited so long is refused, which keeps the wait of everything else below it. It ends when for
 * a while hardly anything had to be refused: not with the first empty queue, or it would flap.
 */

/** For so long everything must wait too long before the queue counts as overloaded, ms. */
export const INTERVAL_MS = 100;
/** The overload lasts at least so long, and ends with such a period in which at most CALM_SHARE was refused, ms. */
export const CALM_MS = 1_000;
const CALM_SHARE = 0.05;
/** A task of a long kind may always wait for so many like it, over all threads. */
export const LEAST_TASKS = 4;

export class Overload {
  /** What a task may wait, ms; Infinity: never overloaded. */
  targetMs: number;
  #overloaded = false;
  /** Since when everything waits too long; 0: it does not. */
  #lateSince = 0;
  #periodEnds = 0;
  #taken = 0;
  #refused = 0;

  constructor(targetMs: number) {
    this.targetMs = targetMs;
  }

  get overloaded(): boolean {
    return this.#overloaded;
  }

  /** `tasksMs`: LEAST_TASKS of their kind, over all threads. */
  limitMs(tasksMs: number): number {
    return Math.max(this.targetMs, tasksMs);
  }

  /** A task was taken out of the queue after `waitedMs`, of the `limitMs` that counts for its kind. */
  taken(now: number, waitedMs: number, limitMs: number): void {
    this.#taken += 1;
    if (waitedMs < limitMs) this.#lateSince = 0;
    else if (this.#lateSince === 0) this.#lateSince = now;
    else if (!this.#overloaded && now - this.#lateSince >= INTERVAL_MS) this.#begin(now);
  }

  /** A task was refused, because it waited or would have to wait too long. */
  refused(): void {
    this.#refused += 1;
  }

  /** Nothing waits. */
  emptied(): void {
    this.#lateSince = 0;
  }

  /** To be called now and then. */
  look(now: number): void {
    if (!this.#overloaded || now < this.#periodEnds) return;
    if (this.#refused <= CALM_SHARE * (this.#refused + this.#taken)) this.#overloaded = false;
    else this.#begin(now);
  }

  #begin(now: number): void {
    this.#overloaded = true;
    this.#lateSince = 0;
    this.#periodEnds = now + CALM_MS;
    this.#taken = 0;
    this.#refused = 0;
  }
}
