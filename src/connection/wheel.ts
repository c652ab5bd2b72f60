/**
 * A coarse timer wheel over slots. Messages never touch it: each slot stands in one bucket, and when that comes
 * round the owner says what is due next from clocks that are kept anyway. Only a deadline that falls *before*
 * the bucket (a frame has begun, bytes are stuck) is scheduled anew; the stale entry is recognised and dropped.
 */
import { TICK_MS } from "../engine/layout.ts";

/** 51 s with ticks of TICK_MS; a later deadline is looked at once on the way. */
const BUCKETS = 1024;

/** Closes what is due; returns when to look again (ms), Infinity for never. */
export type Due = (slot: number, now: number) => number;

export class Wheel {
  readonly #buckets: number[][] = Array.from({ length: BUCKETS }, () => []);
  /** Per slot: the tick of its valid entry; 0 = none. */
  readonly #ticks: number[] = [];
  readonly #due: Due;
  readonly #tickMs: number;
  #tick: number;

  constructor(now: number, due: Due, tickMs: number = TICK_MS) {
    this.#tickMs = tickMs;
    this.#tick = Math.floor(now / tickMs);
    this.#due = due;
  }

  /** A new owner has the slot: only `at` counts. */
  start(slot: number, at: number): void {
    this.#ticks[slot] = 0;
    this.schedule(slot, at);
  }

  /** Looks at the slot at `at` (ms) or up to one tick later, unless it would be looked at before anyway. */
  schedule(slot: number, at: number): void {
    if (at === Number.POSITIVE_INFINITY) return;
    const wanted = Math.max(this.#tick + 1, Math.ceil(at / this.#tickMs));
    const tick = Math.min(wanted, this.#tick + BUCKETS - 1);
    const standing = this.#ticks[slot] ?? 0;
    if (standing !== 0 && standing <= tick) return;
    this.#ticks[slot] = tick;
    this.#buckets[tick % BUCKETS]?.push(slot);
  }

  /** Brings the wheel to `now`. */
  advance(now: number): void {
    const target = Math.floor(now / this.#tickMs);
    // After a long standstill every bucket is due once.
    if (target - this.#tick > BUCKETS) this.#tick = target - BUCKETS;
    while (this.#tick < target) {
      this.#tick += 1;
      this.#turn(this.#tick % BUCKETS, now);
    }
  }

  #turn(index: number, now: number): void {
    const slots = this.#buckets[index];
    if (!slots || slots.length === 0) return;
    this.#buckets[index] = [];
    for (const slot of slots) {
      const standing = this.#ticks[slot] ?? 0;
      if (standing === 0 || standing > this.#tick) continue;
      this.#ticks[slot] = 0;
      this.schedule(slot, this.#due(slot, now));
    }
  }
}
