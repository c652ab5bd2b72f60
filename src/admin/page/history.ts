/**
 * Ten minutes of figures, a second each, for the plots: as many numbers after a day as after ten minutes. Rates are
 * differences of two events; where the server was not heard, or another primary counts, there is a gap.
 */
import type { PageEvent } from "#src/admin/page-events.js";
import { LatencyWindow, QUANTILES, quantile } from "./latency.js";

export const HISTORY_LENGTH = 600;
/** Events come once a second: after that a line would pretend to know what was in between. */
const GAP_MS = 3500;
const LATENCY_WINDOW = 5;
/** A stream that begins anew says at once what the one before has just said. */
const AGAIN_MS = 500;

/** One moment. `null`: not known. Rates are per second. */
export interface Sample {
  open: number;
  accepted: number | null;
  closed: number | null;
  rejected: number | null;
  requests: number | null;
  shed: number | null;
  /** Late or cancelled. */
  failed: number | null;
  p50: number | null;
  p90: number | null;
  p99: number | null;
  p999: number | null;
  received: number | null;
  sent: number | null;
  waiting: number;
  inFlight: number;
  oldestMs: number;
  loopDelay: number;
  loopDelayMax: number;
  cpuWorkers: number;
  cpuPrimary: number;
  memory: number;
  heap: number;
  held: number;
}

export type SeriesName = keyof Sample;

type Counter = "accepted" | "closed" | "rejected" | "requests" | "shed" | "bytesReceived" | "bytesSent";

/** Per second, between two events; null when they are not comparable. */
export function ratePerSecond(
  before: PageEvent | undefined,
  now: PageEvent,
  value: (event: PageEvent) => number | undefined,
): number | null {
  if (!before || before.pid !== now.pid || now.uptimeMs <= before.uptimeMs) return null;
  const [from, to] = [value(before), value(now)];
  if (from === undefined || to === undefined || to < from) return null;
  return ((to - from) * 1000) / (now.uptimeMs - before.uptimeMs);
}

function total<T>(of: readonly T[], value: (each: T) => number): number {
  return of.reduce((sum, each) => sum + value(each), 0);
}

function most<T>(of: readonly T[], value: (each: T) => number): number {
  return of.reduce((largest, each) => Math.max(largest, value(each)), 0);
}

function durationsOf({ listeners }: PageEvent): number[] {
  const sums: number[] = [];
  for (const { durations } of listeners) {
    for (const [index, count] of durations.entries()) sums[index] = (sums[index] ?? 0) + count;
  }
  return sums;
}

export class History {
  /** Seconds since the epoch; the same length as each series. */
  readonly times: number[] = [];
  readonly #series = new Map<SeriesName, (number | null)[]>();
  readonly #latency = new LatencyWindow(LATENCY_WINDOW);
  #before: PageEvent | undefined;
  /** The event before the last, for rates that are not kept. */
  previous: PageEvent | undefined;

  series(name: SeriesName): (number | null)[] {
    let values = this.#series.get(name);
    if (!values) {
      values = this.times.map(() => null);
      this.#series.set(name, values);
    }
    return values;
  }

  /** Takes an event and returns what it says of this second; undefined of one that comes right after another. */
  push(event: PageEvent): Sample | undefined {
    const before = this.#before;
    if (before?.pid === event.pid && Math.abs(event.uptimeMs - before.uptimeMs) < AGAIN_MS) return undefined;
    if (before && event.atMs - before.atMs > GAP_MS) this.#append(before.atMs / 1000 + 1, undefined);
    if (before && before.pid !== event.pid) this.#latency.clear();
    const sample = this.#sampleOf(event, before);
    const last = this.times.at(-1) ?? 0;
    // A clock that was put back must not make time run backwards in the plots.
    this.#append(Math.max(event.atMs / 1000, last + 0.001), sample);
    this.previous = before;
    this.#before = event;
    return sample;
  }

  #append(time: number, sample: Sample | undefined): void {
    this.times.push(time);
    const names = sample ? (Object.keys(sample) as SeriesName[]) : [...this.#series.keys()];
    for (const name of names) {
      const values = this.series(name);
      if (values.length === this.times.length) values[values.length - 1] = sample?.[name] ?? null;
      else values.push(sample?.[name] ?? null);
      if (values.length > HISTORY_LENGTH) values.shift();
    }
    if (this.times.length > HISTORY_LENGTH) this.times.shift();
  }

  #sampleOf(event: PageEvent, before: PageEvent | undefined): Sample {
    const { totals, workers } = event;
    const rate = (counter: Counter): number | null => ratePerSecond(before, event, (each) => each.totals[counter]);
    const recent = this.#latency.push(durationsOf(event));
    const [p50 = null, p90 = null, p99 = null, p999 = null] = QUANTILES.map((each) => quantile(recent, each));
    return {
      open: totals.open,
      accepted: rate("accepted"),
      closed: rate("closed"),
      rejected: rate("rejected"),
      requests: rate("requests"),
      shed: rate("shed"),
      failed: ratePerSecond(before, event, (each) => each.totals.late + each.totals.cancelled),
      ...{ p50, p90, p99, p999 },
      received: rate("bytesReceived"),
      sent: rate("bytesSent"),
      waiting: total(workers, ({ waiting }) => waiting),
      inFlight: total(workers, ({ inFlight }) => inFlight),
      oldestMs: most(workers, ({ oldestMs }) => oldestMs),
      loopDelay: most(workers, ({ loopDelayMs }) => loopDelayMs),
      loopDelayMax: most(workers, ({ loopDelayMaxMs }) => loopDelayMaxMs),
      cpuWorkers: total(workers, ({ cpuPercent = 0 }) => cpuPercent),
      cpuPrimary: event.cpuPercent ?? 0,
      memory: total(workers, ({ memoryBytes = 0 }) => memoryBytes) + (event.memoryBytes ?? 0),
      heap: total(workers, ({ heapBytes }) => heapBytes),
      held: totals.bytesHeldIn + totals.bytesHeldOut,
    };
  }
}
