/** The result of a run: the reports of all processes as one object, in the shape that `--json` prints. */
import { encodeIntoCompressedBase64, type Histogram } from "hdr-histogram-js";
import { mergeLatencies } from "./latency.ts";
import type { LoadMode } from "./options.ts";
import type { LoadReport } from "./report.ts";
import type { ErrnoCounts, Mismatch } from "./tally.ts";

/** Milliseconds. */
interface LatencyMs {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly p9999: number;
  readonly max: number;
}

export interface LoadResult {
  /** From the first connect to the end. */
  readonly connections: {
    readonly requested: number;
    readonly opened: number;
    readonly failed: ErrnoCounts;
    readonly resets: ErrnoCounts;
    readonly closedByPeer: number;
  };
  readonly messages: {
    /** In the window. */
    readonly sent: number;
    /** Whole replies, in the window. */
    readonly received: number;
    /** Those of them that were right. */
    readonly verified: number;
    /** Wrong or uncalled-for replies, from the first connect to the end. */
    readonly mismatched: number;
    /** Messages whose reply never came, from the first connect to the end. */
    readonly outstanding: number;
    /** Messages that were due (`--rate`) and could not be sent, from the beginning to the end. */
    readonly unsent: number;
  };
  /** In the window, with what a codec adds. */
  readonly bytes: { readonly sent: number; readonly received: number };
  /** Length of the window. */
  readonly seconds: number;
  /** Replies received per second in the window; with `churn` that is connections come and gone. */
  readonly perSecond: number;
  /** Null when none was measured (`flood`, or nothing came back). */
  readonly latencyMs: LatencyMs | null;
  /** HDR histogram V2, compressed, base64; values are microseconds. Null like `latencyMs`. */
  readonly histogram: string | null;
  /** CPU time of the load processes in the window. */
  readonly cpuSeconds: number;
  /** The window, epoch ms. */
  readonly windows: { readonly startedAt: number; readonly endedAt: number };
  /** The first reply that was wrong. */
  readonly firstMismatch?: Mismatch;
}

function sum(reports: readonly LoadReport[], of: (report: LoadReport) => number): number {
  return reports.reduce((total, report) => total + of(report), 0);
}

function mergeCounts(parts: readonly ErrnoCounts[]): ErrnoCounts {
  const merged: ErrnoCounts = {};
  for (const part of parts) {
    for (const [name, count] of Object.entries(part)) merged[name] = (merged[name] ?? 0) + count;
  }
  return merged;
}

function percentiles(histogram: Histogram): LatencyMs {
  const at = (percentile: number): number => histogram.getValueAtPercentile(percentile) / 1000;
  return { p50: at(50), p90: at(90), p99: at(99), p999: at(99.9), p9999: at(99.99), max: at(100) };
}

export function mergeReports(reports: readonly LoadReport[], mode: LoadMode): LoadResult {
  const histogram = mergeLatencies(reports.map((report) => report.latencies));
  const measured = mode !== "flood" && histogram.totalCount > 0;
  const mismatch = reports.find((report) => report.mismatch)?.mismatch;
  return {
    connections: {
      requested: sum(reports, (report) => report.requested),
      opened: sum(reports, (report) => report.opened),
      failed: mergeCounts(reports.map((report) => report.failed)),
      resets: mergeCounts(reports.map((report) => report.resets)),
      closedByPeer: sum(reports, (report) => report.closedByPeer),
    },
    messages: {
      sent: sum(reports, (report) => report.sent),
      received: sum(reports, (report) => report.received),
      verified: sum(reports, (report) => report.verified),
      mismatched: sum(reports, (report) => report.mismatched),
      outstanding: sum(reports, (report) => report.outstanding),
      unsent: sum(reports, (report) => report.unsent),
    },
    bytes: {
      sent: sum(reports, (report) => report.bytesSent),
      received: sum(reports, (report) => report.bytesReceived),
    },
    seconds: sum(reports, (report) => report.seconds) / reports.length,
    // Each process divides by its own window: they begin and end some microseconds apart.
    perSecond: sum(reports, (report) => (report.seconds > 0 ? report.received / report.seconds : 0)),
    latencyMs: measured ? percentiles(histogram) : null,
    histogram: measured ? encodeIntoCompressedBase64(histogram) : null,
    cpuSeconds: sum(reports, (report) => report.cpuSeconds),
    windows: {
      startedAt: Math.min(...reports.map((report) => report.startedAt)),
      endedAt: Math.max(...reports.map((report) => report.endedAt)),
    },
    ...(mismatch === undefined ? {} : { firstMismatch: mismatch }),
  };
}

function total(counts: ErrnoCounts): number {
  return Object.values(counts).reduce((all, count) => all + count, 0);
}

/** "3 ECONNREFUSED, 1 ETIMEDOUT" */
function showCounts(counts: ErrnoCounts): string {
  return Object.entries(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(", ");
}

/** What went wrong, in one line; undefined when everything was opened, answered and right. */
export function faultOf({ connections, messages, firstMismatch }: LoadResult): string | undefined {
  const faults: string[] = [];
  if (firstMismatch) {
    const { connection, message, offset, expected, got } = firstMismatch;
    const where = `the first on connection ${connection}, message ${message}, offset ${offset}`;
    const what = expected === "" ? `nothing was due, got "${got}"` : `expected "${expected}", got "${got}"`;
    faults.push(`${messages.mismatched} wrong replies, ${where}: ${what}`);
  }
  const failed = total(connections.failed);
  if (failed > 0) {
    const ports = connections.failed.EADDRNOTAVAIL === undefined ? "" : "; more ports: --source";
    faults.push(`${failed} of ${connections.requested} connections failed (${showCounts(connections.failed)}${ports})`);
  } else if (connections.opened === 0) {
    faults.push("no connection was opened");
  }
  if (total(connections.resets) > 0) faults.push(`connections were reset (${showCounts(connections.resets)})`);
  if (connections.closedByPeer > 0) faults.push(`${connections.closedByPeer} connections were closed by the server`);
  if (messages.outstanding > 0) faults.push(`${messages.outstanding} messages got no reply`);
  return faults.length > 0 ? faults.join("; ") : undefined;
}
