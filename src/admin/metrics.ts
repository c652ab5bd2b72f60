/**
 * The metrics of a server, as Prometheus asks for them: headrace's own, made of one reading of the scoreboard and the
 * kernel (families), and behind them those of the services. The admin server mounts `render`. Whatever happens to the
 * workers meanwhile, a scrape takes no longer than they are given to answer; scrapes at the same time share one.
 */
import { type Metric, Registry } from "prom-client";
import { type Family, PREFIX } from "./family.ts";
import type { MetricsReading, ScrapeReading } from "./metrics-reading.ts";
import { SERVER_FAMILIES } from "./server-families.ts";
import { TRAFFIC_FAMILIES } from "./traffic-families.ts";
import { type AskedWorker, UserMetrics } from "./user-metrics.ts";
import { WORKER_FAMILIES } from "./worker-families.ts";

/** All of headrace's own, in the order in which they are told. */
export const FAMILIES: readonly Family[] = [...SERVER_FAMILIES, ...TRAFFIC_FAMILIES, ...WORKER_FAMILIES];

/** What the primary gives. */
export interface MetricsSource {
  read(): Promise<MetricsReading>;
  /** Whose services may have metrics of their own. */
  workers(): readonly AskedWorker[];
  warn(message: string): void;
}

export interface Rendered {
  readonly contentType: string;
  readonly body: string;
}

export class Metrics {
  readonly #source: MetricsSource;
  readonly #registry: Registry = new Registry();
  readonly #user: UserMetrics;
  #reading: ScrapeReading | undefined;
  #rendering: Promise<Rendered> | undefined;

  constructor(source: MetricsSource) {
    this.#source = source;
    this.#user = new UserMetrics((message) => source.warn(message));
    for (const family of FAMILIES) this.#register(family);
  }

  /** Everything, in Prometheus' text format. */
  render(): Promise<Rendered> {
    this.#rendering ??= this.#render().finally(() => {
      this.#rendering = undefined;
    });
    return this.#rendering;
  }

  async #render(): Promise<Rendered> {
    const { text, ...user } = await this.#user.read(this.#source.workers());
    this.#reading = { ...(await this.#source.read()), user };
    const own = await this.#registry.metrics();
    return { contentType: this.#registry.contentType, body: text === "" ? own : `${own}\n${text}` };
  }

  /**
   * A registry asks no more of a metric than its name and `get()`, and prom-client itself registers such (cluster.js).
   * Its counters cannot be set, nor its histograms be filled with what others have counted.
   */
  #register({ name, help, type, samples }: Family): void {
    const get = (): object => {
      const values = (this.#reading ? samples(this.#reading) : []).map(({ labels, value, suffix }) => ({
        labels,
        value,
        ...(suffix === undefined ? {} : { metricName: `${name}${suffix}` }),
      }));
      return { name, help, type, values, aggregator: "sum" };
    };
    this.#registry.registerMetric({ name, get } as unknown as Metric);
  }
}

/** The table of FAMILIES for the README, in Markdown. */
export function metricsTable(): string {
  const rows = FAMILIES.map(
    ({ name, type, labels, help }) =>
      `| \`${name.slice(PREFIX.length)}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${help} |`,
  );
  return ["| name | type | labels | what it is |", "| --- | --- | --- | --- |", ...rows].join("\n");
}
