/**
 * How long requests take, and how long it takes to find them in the bytes: one object for all endpoints of a worker.
 * Every request that is over is observed once, in its listener's row of the scoreboard: one that is answered in the
 * turn in which it came by the two ends of its lap (engine/laps.ts), any other by its ticket.
 *
 * After CALM requests in a row that each took less than the first bound, the clock is read for GROUP of a round at
 * once: when they take less than that together, each of them does, and nothing was to be found out. When they do not,
 * one of them is taken to have been slow, and each is timed again. A listener with a handler that has returned a
 * promise is always timed so. Decoding is timed for one message in SAMPLE, which stands for them all.
 */
import { DURATION_BUCKETS_S } from "../base/buckets.ts";
import { Laps } from "../engine/laps.ts";
import { LISTENER_DURATIONS, LISTENER_FIELDS } from "../os/scoreboard.ts";
import { InFlight } from "./in-flight.ts";

const CALM = 500;
const GROUP = 8;
/** A prime: what repeats itself in the input is seen at different places. */
const SAMPLE = 61;
const FIRST_BOUND_MS = DURATION_BUCKETS_S[0] * 1e3;
const BOUNDS_MS: Float64Array = Float64Array.from(DURATION_BUCKETS_S, (seconds) => seconds * 1e3);
const SUM = LISTENER_FIELDS.indexOf("durationSum");

function bucketOf(ms: number): number {
  let bucket = 1;
  while (bucket < BOUNDS_MS.length && ms > (BOUNDS_MS[bucket] as number)) bucket += 1;
  return bucket;
}

/** Counts a request that took `ms`. */
export function observe(row: Float64Array, ms: number): void {
  // Nearly all are in the first one.
  const cell = ms <= FIRST_BOUND_MS ? LISTENER_DURATIONS : LISTENER_DURATIONS + bucketOf(ms);
  row[cell] = (row[cell] as number) + 1;
  row[SUM] = (row[SUM] as number) + ms * 1e-3;
}

/** The same for so many, each of which took less than the first bound. */
function observeMany(row: Float64Array, count: number, ms: number): void {
  row[LISTENER_DURATIONS] = (row[LISTENER_DURATIONS] as number) + count;
  row[SUM] = (row[SUM] as number) + count * ms * 1e-3;
}

const NO_ROW = new Float64Array(0);

export class Timing {
  readonly laps: Laps;
  readonly inFlight: InFlight = new InFlight();
  /** Messages until the next one whose decoding is timed. */
  untilSample: number = SAMPLE;
  /** Seconds that decoding took, as estimated. */
  decodeSeconds = 0;

  /** Requests in a row that were not slow, up to CALM. */
  #calm = 0;
  /** Requests that are over since the clock was read, and their row. */
  #done = 0;
  #row: Float64Array = NO_ROW;
  /** What a request of the last group took, ms. */
  #usualMs = 0;

  constructor(laps: Laps = new Laps()) {
    this.laps = laps;
    laps.settle = () => this.#settle();
  }

  /** A request begins. `exact`: it may not end in the turn in which it began, and is timed by itself. */
  begin(exact: boolean): void {
    if (exact && this.#done > 0) this.#settle();
    this.laps.begin();
  }

  /** It is over: it took the current lap; the next one begins. `exact` as it began. */
  finish(row: Float64Array, exact: boolean): void {
    if (exact || this.#calm < CALM || !this.laps.running) {
      this.#finishOne(row);
      return;
    }
    if (this.#row !== row) {
      if (this.#done > 0) this.#settle();
      this.#row = row;
    }
    this.#done += 1;
    if (this.#done === GROUP) this.#settle();
  }

  /** It is not over, and has a ticket: the next lap begins. */
  leave(): void {
    // Of a group, it is the first of its listener that waits.
    const others = this.#done;
    this.#done = 0;
    if (others > 0) observeMany(this.#row, others, this.#usualMs);
    this.laps.end();
  }

  /** One within the handler of another, whose lap began at `outer`, is over; without a row it has a ticket. */
  finishNested(row: Float64Array | undefined, outer: number): void {
    const ms = this.laps.end();
    if (row) observe(row, ms);
    this.laps.resume(outer);
  }

  #finishOne(row: Float64Array): void {
    // Others before it, of its group so far.
    const others = this.#done;
    this.#done = 0;
    if (others > 0) observeMany(this.#row, others, this.#usualMs);
    const ms = Math.max(0, this.laps.end() - others * this.#usualMs);
    observe(row, ms);
    if (ms > FIRST_BOUND_MS) this.#calm = 0;
    else if (this.#calm < CALM) this.#calm += 1;
  }

  /** Reads the clock for those that are over. */
  #settle(): void {
    const done = this.#done;
    if (done === 0) return;
    const ms = this.laps.end();
    this.#done = 0;
    if (ms <= FIRST_BOUND_MS) {
      this.#usualMs = ms / done;
      observeMany(this.#row, done, this.#usualMs);
      return;
    }
    observeMany(this.#row, done - 1, this.#usualMs);
    observe(this.#row, ms - (done - 1) * this.#usualMs);
    this.#calm = 0;
  }

  /** A message was decoded between two readings of the clock (ms); the third was made at once after the second. */
  sampled(begun: number, done: number, after: number): void {
    this.untilSample = SAMPLE;
    // Less what reading the clock takes.
    this.decodeSeconds += Math.max(0, done - begun - (after - done)) * 1e-3 * SAMPLE;
  }

  /** Age of the oldest request that waits, seconds; 0: there is none. */
  oldestSeconds(): number {
    const { oldest } = this.inFlight;
    return oldest === undefined ? 0 : Math.max(0, (this.laps.now() - oldest) * 1e-3);
  }
}
