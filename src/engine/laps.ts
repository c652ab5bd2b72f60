/**
 * The clock by which requests are timed: fine-grained, ms since some moment, and dear (40 to 70 ns). So it is read once
 * for a request, at most: within a round, where one ends the next begins. Who spends time in a round on something else says `forget`;
 * between rounds nothing is kept, and whoever begins reads anew. What the current lap began at stands in memory that
 * takes a number without allocating; nothing but the end of a lap returns a number where it is optimized.
 */
// Not the global one, which is behind a getter.
import { performance } from "node:perf_hooks";

export class Laps {
  readonly #read: () => number;
  /** When the current lap began; 0: it has not. */
  readonly #begun = new Float64Array(1);
  #running = false;
  /** Called before what a lap began at is lost: several requests may have been done since. */
  settle: () => void = () => {};

  constructor(read: () => number = () => performance.now()) {
    this.#read = read;
  }

  /** A round begins. */
  start(): void {
    this.#running = true;
    this.#begun[0] = this.#read();
  }

  /** It is over. */
  stop(): void {
    this.settle();
    this.#running = false;
    this.#begun[0] = 0;
  }

  /** A round goes on. */
  get running(): boolean {
    return this.#running;
  }

  now(): number {
    return this.#read();
  }

  /** A lap begins, if it has not with the end of the last one. */
  begin(): void {
    if (this.#begun[0] === 0) this.#begun[0] = this.#read();
  }

  /** When the current lap began. */
  get begun(): number {
    return this.#begun[0] as number;
  }

  /** The lap is over, and the next one begins: returns how long it took, ms. */
  end(): number {
    const now = this.#read();
    const took = now - (this.#begun[0] as number);
    this.#begun[0] = this.#running ? now : 0;
    return took;
  }

  /** A lap within the current one, which `resume` goes on with. */
  nest(): number {
    const outer = this.#begun[0] as number;
    this.#begun[0] = this.#read();
    return outer;
  }

  resume(outer: number): void {
    this.#begun[0] = outer;
  }

  /** What was done since the last lap was no lap. Not to be called within one. */
  forget(): void {
    this.settle();
    this.#begun[0] = 0;
  }
}
