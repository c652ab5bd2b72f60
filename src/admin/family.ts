/**
 * A metric family: a name, what it means, and where its values come from. The tables of families (traffic-families.ts,
 * worker-families.ts, server-families.ts) are all there is to know about headrace's own metrics: the registry, the
 * README's table and the tests are made of them.
 */
import type { ScrapeReading } from "./metrics-reading.ts";

/** Before every name of ours, and before none of a user's. */
export const PREFIX = "headrace_";

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
  /** Of a histogram: `_bucket`, `_sum` or `_count`. */
  readonly suffix?: string;
}

export interface Family {
  /** With the prefix. */
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  /** One sentence without its full stop, with the unit where the name has none. */
  readonly help: string;
  readonly labels: readonly string[];
  /** Values at the moment of `reading`. A counter's never go back while the primary lives. */
  samples(reading: ScrapeReading): Sample[];
}

type Values = (reading: ScrapeReading) => readonly (readonly [...labels: string[], value: number])[];

function family(type: Family["type"], name: string, help: string, labels: readonly string[], values: Values): Family {
  const sampleOf = (row: readonly (string | number)[]): Sample => ({
    labels: Object.fromEntries(labels.map((label, index) => [label, String(row[index])])),
    value: row[labels.length] as number,
  });
  return { name: `${PREFIX}${name}`, type, help, labels, samples: (reading) => values(reading).map(sampleOf) };
}

/** Only grows. `values`: a row of label values, in the order of `labels`, with the count behind them. */
export function counter(name: string, help: string, labels: readonly string[], values: Values): Family {
  return family("counter", name, help, labels, values);
}

/** As it is now. `values` as of `counter`. */
export function gauge(name: string, help: string, labels: readonly string[], values: Values): Family {
  return family("gauge", name, help, labels, values);
}
