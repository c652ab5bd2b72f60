/**
 * The bounds of the histogram of request durations. They are fixed, so that a worker counts into shared memory with
 * plain increments, and counts of several workers and generations can be added.
 */

/** Upper bounds, seconds, inclusive. What is longer belongs to one more bucket, which has none. */
export const DURATION_BUCKETS_S = [
  0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
] as const;

/** With the last one. */
export const DURATION_BUCKETS: number = DURATION_BUCKETS_S.length + 1;
