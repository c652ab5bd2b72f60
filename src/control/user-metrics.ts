/** A user's own prom-client metrics on their way from a worker to the primary: plain data, bounded, no NaN in JSON. */

/** One sample, as prom-client's `get()` has it, but for values that JSON does not know: "NaN", "Infinity", "-Infinity". */
export interface UserSample {
  readonly value: number | "NaN" | "Infinity" | "-Infinity";
  readonly labels: Readonly<Record<string, string>>;
  /** Of histograms and summaries: with `_bucket`, `_sum`, `_count`. */
  readonly metricName?: string;
}

export const USER_METRIC_TYPES = ["counter", "gauge", "histogram", "summary"] as const;

export const AGGREGATORS = ["sum", "first", "min", "max", "average", "omit"] as const;

export interface UserMetric {
  readonly name: string;
  readonly help: string;
  readonly type: (typeof USER_METRIC_TYPES)[number];
  readonly aggregator: (typeof AGGREGATORS)[number];
  readonly values: readonly UserSample[];
}

export interface UserMetricsAnswer {
  readonly metrics: readonly UserMetric[];
  /** Names that are ours (`headrace_…`): left out. At most ten. */
  readonly refused: readonly string[];
  /** Names of metrics that did not fit: left out whole. At most ten. */
  readonly leftOut: readonly string[];
}

/** Samples in one worker's answer. */
export const USER_SAMPLES_MAX = 1_000;
/** UTF-16 units of its JSON. */
export const USER_BYTES_MAX: number = 256 * 1024;
