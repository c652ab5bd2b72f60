/** Percentiles from a histogram of fixed buckets, as Prometheus would say them: linear within the bucket. */

/** Those that are shown, in order. */
export const QUANTILES = [0.5, 0.9, 0.99, 0.999] as const;

/** Upper bounds in ms; DURATION_BUCKETS_S (a test compares them). */
export const BOUNDS_MS: readonly number[] = [
  0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000,
];

/** In ms; null of an empty histogram. What is above the last bound is said to be at it. */
export function quantile(buckets: readonly number[], fraction: number): number | null {
  const total = buckets.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  const rank = fraction * total;
  let below = 0;
  for (const [index, count] of buckets.entries()) {
    if (below + count >= rank && count > 0) {
      const from = index === 0 ? 0 : (BOUNDS_MS[index - 1] ?? 0);
      const to = BOUNDS_MS[index] ?? from;
      return from + ((to - from) * (rank - below)) / count;
    }
    below += count;
  }
  return BOUNDS_MS.at(-1) ?? null;
}

/** What came in the last few seconds, of counters that only grow. */
export class LatencyWindow {
  readonly #length: number;
  readonly #kept: (readonly number[])[] = [];

  /** `length`: how many events back the window begins. */
  constructor(length: number) {
    this.#length = length;
  }

  /** Takes what is counted by now; the counts since the window's beginning. */
  push(counts: readonly number[]): number[] {
    const last = this.#kept.at(-1);
    // Counters that went back are those of another primary.
    if (last?.some((count, index) => count > (counts[index] ?? 0))) this.clear();
    this.#kept.push(counts);
    if (this.#kept.length > this.#length + 1) this.#kept.shift();
    const first = this.#kept[0];
    return counts.map((count, index) => count - (first?.[index] ?? 0));
  }

  clear(): void {
    this.#kept.length = 0;
  }
}
