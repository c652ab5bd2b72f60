/**
 * The services' own metrics, of all workers together: by each metric's `aggregator`, as prom-client's cluster support
 * does (a sum, unless it says otherwise). What a worker process counted stays when it has gone, as of its last answer:
 * a sum that went back would look like a reset, and a rate over it like a burst that never was. Bounded in time (a
 * worker that does not answer is left out, and its counts are those of before) and in series.
 */
import { AggregatorRegistry, type Registry } from "prom-client";
import { messageOf } from "../base/errors.ts";
import type { UserMetric, UserMetricsAnswer, UserSample } from "../control/user-metrics.ts";
import type { UserFigures } from "./metrics-reading.ts";

/** Samples in all. */
const SAMPLES_MAX = 10_000;
/** Of them, those of processes that have gone. */
const RETIRED_MAX = 5_000;
/** Names that were warned of. */
const WARNED_MAX = 100;

/** Between two warnings of why one process does not say its metrics. */
const SILENCE_MS = 60_000;

/** One worker process. */
export interface AskedWorker {
  /** The same object as long as it is the same process. */
  readonly process: object;
  /** Rejects with why there is no answer, soon. */
  ask(): Promise<UserMetricsAnswer>;
}

export interface UserScrape extends UserFigures {
  /** In Prometheus' text format; empty when there are none. */
  readonly text: string;
}

/** Counts of processes that have gone, by labels. */
interface Retired {
  readonly metric: UserMetric;
  readonly samples: Map<string, UserSample>;
}

const keyOf = ({ metricName = "", labels }: UserSample): string =>
  JSON.stringify([metricName, ...Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);

/** What must not go back: counters, and of histograms and summaries what is counted. */
function countsOf(metric: UserMetric): UserMetric | undefined {
  if (metric.aggregator !== "sum" || metric.type === "gauge") return undefined;
  if (metric.type !== "summary") return metric;
  return { ...metric, values: metric.values.filter(({ metricName }) => metricName !== undefined) };
}

const isNumber = ({ value }: UserSample): boolean => Number.isFinite(Number(value));

/** A quantile of all workers cannot be had from those of each, least of all as their sum. */
function withoutQuantiles(metric: UserMetric): UserMetric {
  return metric.type === "summary" && metric.aggregator === "sum" ? (countsOf(metric) ?? metric) : metric;
}

const onlyCounts = (metrics: readonly UserMetric[]): UserMetric[] =>
  metrics.flatMap((metric) => countsOf(metric) ?? []);

export class UserMetrics {
  readonly #warn: (message: string) => void;
  /** Last answers of living processes. */
  readonly #last = new Map<object, readonly UserMetric[]>();
  /** By name. */
  readonly #retired = new Map<string, Retired>();
  #retiredSamples = 0;
  readonly #warned = new Set<string>();
  /** When it was said last why a process does not answer; performance.now(). */
  readonly #complained = new WeakMap<object, number>();

  constructor(warn: (message: string) => void) {
    this.#warn = warn;
  }

  /** Asks all of them at once. */
  async read(workers: readonly AskedWorker[]): Promise<UserScrape> {
    const answers = await Promise.allSettled(workers.map((worker) => worker.ask()));
    const leftOut = new Set<string>();
    const lists: (readonly UserMetric[])[] = [];
    for (const [index, { process }] of workers.entries()) {
      const answer = answers[index];
      if (answer?.status === "fulfilled") {
        const { refused, leftOut: tooMany } = answer.value;
        const metrics = this.#withoutNonsense(answer.value.metrics, this.#last.get(process) ?? []);
        this.#last.set(process, metrics);
        lists.push(workers.length > 1 ? metrics.map(withoutQuantiles) : metrics);
        for (const name of refused) this.#leaveOut(leftOut, name, "names that begin with headrace_ are its own");
        for (const name of tooMany) this.#leaveOut(leftOut, name, "a worker has too many series");
      } else {
        lists.push(onlyCounts(this.#last.get(process) ?? []));
        this.#complain(process, answer?.reason);
      }
    }
    this.#retireAllBut(new Set(workers.map(({ process }) => process)));
    const registry = this.#aggregate(lists);
    this.#bound(registry, leftOut);
    const any = registry.getMetricsAsArray().length > 0;
    const unanswered = answers.filter(({ status }) => status === "rejected").length;
    return { text: any ? await registry.metrics() : "", unanswered, leftOut: leftOut.size };
  }

  /** NaN in one count would be that of all workers, and for good: what the process counted before holds. */
  #withoutNonsense(metrics: readonly UserMetric[], before: readonly UserMetric[]): UserMetric[] {
    return metrics.map((metric) => {
      const counts = countsOf(metric)?.values ?? [];
      const wrong = new Set(counts.filter((sample) => !isNumber(sample)));
      if (wrong.size === 0) return metric;
      this.#warnOnce(metric.name, "has a count that is no finite number: it is left as it was before");
      const known = before.find(({ name, type }) => name === metric.name && type === metric.type)?.values ?? [];
      const values = metric.values.flatMap((sample) => {
        if (!wrong.has(sample)) return [sample];
        const key = keyOf(sample);
        return known.find((each) => keyOf(each) === key) ?? [];
      });
      return { ...metric, values };
    });
  }

  #complain(process: object, reason: unknown): void {
    const now = performance.now();
    if (now - (this.#complained.get(process) ?? Number.NEGATIVE_INFINITY) < SILENCE_MS) return;
    this.#complained.set(process, now);
    this.#warn(`a scrape lacks what a service counts itself: ${messageOf(reason)}`);
  }

  #aggregate(lists: readonly (readonly UserMetric[])[]): Registry {
    const types = new Map(lists.flat().map(({ name, type }) => [name, type]));
    const retired = [...this.#retired.values()].flatMap(({ metric, samples }) => {
      // Another release of the service may mean something else by a name.
      const same = (types.get(metric.name) ?? metric.type) === metric.type;
      return same ? [{ ...metric, values: [...samples.values()] }] : [];
    });
    const decoded = [...lists, retired].map((metrics) =>
      metrics.map((metric) => ({
        ...metric,
        type: types.get(metric.name) ?? metric.type,
        values: metric.values.map((sample) => ({ ...sample, value: Number(sample.value) })),
      })),
    );
    return AggregatorRegistry.aggregate(decoded);
  }

  /** Takes out what is too much in all. */
  #bound(registry: Registry, leftOut: Set<string>): void {
    let samples = 0;
    for (const metric of registry.getMetricsAsArray() as unknown as UserMetric[]) {
      samples += metric.values.length;
      if (samples <= SAMPLES_MAX) continue;
      samples -= metric.values.length;
      registry.removeSingleMetric(metric.name);
      this.#leaveOut(leftOut, metric.name, "all workers together have too many series");
    }
  }

  #retireAllBut(living: ReadonlySet<object>): void {
    for (const [process, metrics] of this.#last) {
      if (living.has(process)) continue;
      this.#last.delete(process);
      for (const metric of onlyCounts(metrics)) this.#retire(metric);
    }
  }

  #retire(metric: UserMetric): void {
    let retired = this.#retired.get(metric.name);
    if (retired && retired.metric.type !== metric.type) {
      this.#retiredSamples -= retired.samples.size;
      retired = undefined;
    }
    retired ??= { metric: { ...metric, values: [] }, samples: new Map() };
    this.#retired.set(metric.name, retired);
    for (const sample of metric.values) {
      const key = keyOf(sample);
      const before = retired.samples.get(key);
      if (!before && this.#retiredSamples >= RETIRED_MAX) {
        this.#warnOnce(metric.name, "is not kept of workers that have gone: too many series");
        continue;
      }
      if (!before) this.#retiredSamples += 1;
      const value = Number(before?.value ?? 0) + Number(sample.value);
      retired.samples.set(key, { ...sample, value });
    }
  }

  #leaveOut(leftOut: Set<string>, name: string, why: string): void {
    leftOut.add(name);
    this.#warnOnce(name, `is left out: ${why}`);
  }

  #warnOnce(name: string, what: string): void {
    if (this.#warned.has(name) || this.#warned.size >= WARNED_MAX) return;
    this.#warned.add(name);
    this.#warn(`the metric ${name} of a service ${what}`);
  }
}
