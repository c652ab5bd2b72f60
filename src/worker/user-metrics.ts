/**
 * A service's own metrics: those in the default register of every prom-client that the service has loaded, whichever
 * copy of it that is. They are found among the modules that Node has loaded (prom-client is a CommonJS package, also
 * when a service imports it), so that a service without metrics costs nothing and one with metrics need do nothing.
 * The answer is bounded; a metric is in it whole, or not at all.
 */
import { createRequire } from "node:module";
import { sep } from "node:path";
import {
  AGGREGATORS,
  USER_BYTES_MAX,
  USER_METRIC_TYPES,
  USER_SAMPLES_MAX,
  type UserMetric,
  type UserMetricsAnswer,
  type UserSample,
} from "../control/user-metrics.ts";

/** What this file needs of a prom-client of any version. */
interface Register {
  getMetricsAsJSON(): Promise<unknown> | unknown;
}

/** Ours. */
const RESERVED = /^headrace_/;
const NAMED_MAX = 10;
/** prom-client makes sure of it; one bad line would cost the whole scrape. */
const METRIC_NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL_NAME = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const ENTRY = `${sep}node_modules${sep}prom-client${sep}index.js`;

const { cache } = createRequire(import.meta.url);

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

function loadedRegisters(): Register[] {
  return Object.entries(cache).flatMap(([path, module]) => {
    if (!path.endsWith(ENTRY)) return [];
    const exported: unknown = module?.exports;
    const register = isObject(exported) ? exported.register : undefined;
    return isObject(register) && typeof register.getMetricsAsJSON === "function"
      ? [register as unknown as Register]
      : [];
  });
}

function sampleOf(raw: unknown): UserSample {
  const { value, labels, metricName } = isObject(raw) ? raw : {};
  const number = Number(value);
  return {
    value: Number.isFinite(number) ? number : (String(number) as UserSample["value"]),
    labels: Object.fromEntries(
      Object.entries(isObject(labels) ? labels : {}).map(([key, text]) => [key, String(text)]),
    ),
    ...(typeof metricName === "string" ? { metricName } : {}),
  };
}

function isSound({ name, values }: UserMetric): boolean {
  return (
    METRIC_NAME.test(name) &&
    values.every(
      ({ labels, metricName = name }) =>
        metricName.startsWith(name) &&
        METRIC_NAME.test(metricName) &&
        Object.keys(labels).every((label) => LABEL_NAME.test(label)),
    )
  );
}

function metricOf(raw: unknown): UserMetric | undefined {
  if (!isObject(raw) || typeof raw.name !== "string" || !Array.isArray(raw.values)) return undefined;
  const type = USER_METRIC_TYPES.find((each) => each === raw.type);
  if (!type) return undefined;
  const aggregator = AGGREGATORS.find((each) => each === raw.aggregator) ?? "sum";
  const metric = { name: raw.name, help: String(raw.help), type, aggregator, values: raw.values.map(sampleOf) };
  return isSound(metric) ? metric : undefined;
}

/** What fits of `raw`, as prom-client's getMetricsAsJSON has it. */
export function boundedAnswer(raw: readonly unknown[]): UserMetricsAnswer {
  const refused: string[] = [];
  const leftOut: string[] = [];
  const metrics: UserMetric[] = [];
  let [samples, bytes] = [0, 0];
  for (const each of raw) {
    // Looked at before it is copied: one metric may have a million.
    const size = isObject(each) && Array.isArray(each.values) ? each.values.length : 0;
    const name = isObject(each) ? String(each.name).slice(0, 200) : "";
    if (RESERVED.test(name)) {
      if (refused.length < NAMED_MAX) refused.push(name);
      continue;
    }
    const metric = samples + size <= USER_SAMPLES_MAX ? metricOf(each) : undefined;
    const length = metric ? JSON.stringify(metric).length : 0;
    if (!metric || bytes + length > USER_BYTES_MAX) {
      if (size > 0 && leftOut.length < NAMED_MAX) leftOut.push(name);
      continue;
    }
    samples += size;
    bytes += length;
    metrics.push(metric);
  }
  return { metrics, refused, leftOut };
}

let reading = false;

/** Rejects with what a `collect()` threw, and while the one before still reads: one that hangs is called once. */
export async function readUserMetrics(): Promise<UserMetricsAnswer> {
  if (reading) throw new Error("its own metrics are still being read");
  reading = true;
  try {
    const lists = await Promise.all(loadedRegisters().map((register) => register.getMetricsAsJSON()));
    return boundedAnswer(lists.flatMap((list) => (Array.isArray(list) ? list : [])));
  } finally {
    reading = false;
  }
}
