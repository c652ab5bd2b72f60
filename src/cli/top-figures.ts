/**
 * What `headrace top` shows, made of two answers of `status`: what is now, and how much a second of what is counted.
 * Pure. The time between the two is the server's own, so that a slow answer falsifies no rate. Where there is nothing to
 * compare with (the first answer, another primary after an upgrade or a restart, a worker that was replaced) there is
 * no rate, rather than a wrong one.
 */
import type { ServerStatus, WorkerStatus } from "../control/status.ts";

export interface Rates {
  readonly accepted: number;
  readonly requests: number;
  readonly shed: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
}

export interface TopWorker {
  readonly status: WorkerStatus;
  readonly rates: Rates | undefined;
}

export interface TopListener {
  readonly name: string;
  readonly address: string;
  readonly service: string;
  readonly open: number;
  /** A second; undefined where there is nothing to compare with. */
  readonly requests: number | undefined;
  readonly opened: number | undefined;
}

export interface TopFigures {
  readonly status: ServerStatus;
  readonly rates: Rates | undefined;
  readonly workers: readonly TopWorker[];
  readonly listeners: readonly TopListener[];
  /** A second, by reason: those that are not 0, the most frequent first. */
  readonly closes: readonly (readonly [reason: string, perSecond: number])[];
  readonly rejections: readonly (readonly [reason: string, perSecond: number])[];
}

type Counted = Readonly<Record<keyof Rates, number>>;

const RATES: readonly (keyof Rates)[] = ["accepted", "requests", "shed", "bytesReceived", "bytesSent"];

function ratesOf(before: Counted | undefined, after: Counted, seconds: number): Rates | undefined {
  if (before === undefined || seconds <= 0) return undefined;
  const rates = RATES.map((name) => [name, Math.max(0, after[name] - before[name]) / seconds]);
  return Object.fromEntries(rates) as unknown as Rates;
}

function byReason(
  before: Readonly<Record<string, number>> | undefined,
  after: Readonly<Record<string, number>>,
  seconds: number,
): [string, number][] {
  if (before === undefined || seconds <= 0) return [];
  return Object.entries(after)
    .map(([reason, count]): [string, number] => [reason, (count - (before[reason] ?? 0)) / seconds])
    .filter(([, rate]) => rate > 0)
    .sort(([, a], [, b]) => b - a);
}

export function topFigures(earlier: ServerStatus | undefined, status: ServerStatus): TopFigures {
  const same = earlier?.pid === status.pid && earlier.startedAt === status.startedAt;
  const before = same ? earlier : undefined;
  const seconds = before ? (status.uptimeMs - before.uptimeMs) / 1000 : 0;
  const rate = (old: number | undefined, now: number): number | undefined =>
    old === undefined || seconds <= 0 ? undefined : Math.max(0, now - old) / seconds;
  return {
    status,
    rates: ratesOf(before?.totals, status.totals, seconds),
    workers: status.workers.map((worker) => {
      const old = before?.workers.find(({ pid, index }) => pid === worker.pid && index === worker.index);
      return { status: worker, rates: ratesOf(old, worker, seconds) };
    }),
    listeners: status.listeners.map(({ name, address, service, open, requests, opened }) => {
      const old = before?.listeners.find((listener) => listener.name === name && listener.address === address);
      return {
        name,
        address,
        service,
        open,
        requests: rate(old?.requests, requests),
        opened: rate(old?.opened, opened),
      };
    }),
    closes: byReason(before?.closes, status.closes, seconds),
    rejections: byReason(before?.rejections, status.rejections, seconds),
  };
}
