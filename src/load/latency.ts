/**
 * Latencies, counted into the buckets of a High Dynamic Range histogram (3 digits, microseconds, up to 35 minutes).
 * The buckets are kept here as plain numbers: recording takes 2 to 5 ns, where the library's recordValue takes 160 (a
 * logarithm and two powers). The library does the rest once the run is over: merging, percentiles, the wire format.
 */
import { build, type Histogram } from "hdr-histogram-js";

/** Values below this have a bucket each; from there on each doubling has HALF buckets. */
const SINGLE = 2048;
const HALF = 1024;
const HALF_BITS = 10;
/** Position of the highest bit of SINGLE - 1, counted by Math.clz32. */
const SINGLE_ZEROS = 21;
const MAX_MICROS = 2 ** 31 - 1;
const BUCKETS = (SINGLE_ZEROS + 1) * HALF;

/** Buckets that are not empty: index, count, index, count, … */
export type LatencyCounts = readonly number[];

export class Latencies {
  readonly #counts = new Float64Array(BUCKETS);

  /** `ms` from sending to the reply. */
  record(ms: number): void {
    const micros = ms < 0 ? 0 : Math.min(MAX_MICROS, ms * 1000) | 0;
    const doublings = micros < SINGLE ? 0 : SINGLE_ZEROS - Math.clz32(micros);
    const index = (doublings << HALF_BITS) + (micros >> doublings);
    this.#counts[index] = (this.#counts[index] as number) + 1;
  }

  clear(): void {
    this.#counts.fill(0);
  }

  counts(): LatencyCounts {
    const pairs: number[] = [];
    this.#counts.forEach((count, index) => {
      if (count > 0) pairs.push(index, count);
    });
    return pairs;
  }
}

/** One histogram of what several processes counted; values are microseconds. */
export function mergeLatencies(parts: readonly LatencyCounts[]): Histogram {
  const histogram = build({
    bitBucketSize: 64,
    autoResize: false,
    highestTrackableValue: MAX_MICROS,
    numberOfSignificantValueDigits: 3,
  });
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) {
      const index = part[i] as number;
      const doublings = Math.max(0, (index >> HALF_BITS) - 1);
      histogram.recordValueWithCount((index - doublings * HALF) * 2 ** doublings, part[i + 1] as number);
    }
  }
  return histogram;
}
