/**
 * How long requests take, and how long it takes to find them in the bytes: one object for all endpoints of a worker.
 * Every request that is over is observed once, in its listener's row of the scoreboard: one that is answered in the
 * turn in which it came by the two ends of its lap (engine/laps.ts), any other by its ticket. Decoding is timed for
 * one message in SAMPLE, which stands for them all.
 */
import { DURATION_BUCKETS_S } from "../base/buckets.ts";
import { Laps } from "../engine/laps.ts";
import { LISTENER_DURATIONS, LISTENER_FIELDS } from "../os/scoreboard.ts";
import { InFlight } from "./in-flight.ts";

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

export class Timing {
  readonly laps: Laps;
  readonly inFlight: InFlight = new InFlight();
  /** Messages until the next one whose decoding is timed. */
  untilSample: number = SAMPLE;
  /** Seconds that decoding took, as estimated. */
  decodeSeconds = 0;

  constructor(laps: Laps = new Laps()) {
    this.laps = laps;
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
