/** What a server takes, sampled after each change, and what must not be left when everybody has gone. */
import { readdirSync, readFileSync } from "node:fs";
import { descriptorsOf } from "../../test/support/processes.js";
import { pssBytes } from "../process/memory.ts";

export interface Sample {
  /** Since the beginning. */
  readonly seconds: number;
  readonly pssBytes: number;
  readonly processes: number;
  /** Descriptors of the process that has most, the primary apart. */
  readonly primaryDescriptors: number;
  readonly workerDescriptors: number;
  /** Of its folder: configuration, runtime directory, temporary files. */
  readonly files: readonly string[];
}

function isWorker(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("worker");
  } catch {
    return true;
  }
}

/** pidusage keeps one for each process it was asked about, for a minute after the last time. */
const USAGE = /^\/proc\/\d+\/stat$/;

export function sample(began: number, pids: readonly number[], folder: string): Sample {
  const counts = (workers: boolean): number[] =>
    pids
      .filter((pid) => isWorker(pid) === workers)
      .map((pid) => descriptorsOf(pid).filter((link) => !USAGE.test(link)).length);
  return {
    seconds: (performance.now() - began) / 1000,
    pssBytes: pssBytes(pids),
    processes: pids.length,
    primaryDescriptors: Math.max(0, ...counts(false)),
    workerDescriptors: Math.max(0, ...counts(true)),
    files: readdirSync(folder).sort(),
  };
}

/** Bytes an hour, by least squares over the later half: caches fill and heaps settle in the first. */
export function slope(samples: readonly Sample[]): number {
  const late = samples.slice(samples.length >> 1);
  const mean = (of: (each: Sample) => number): number => late.reduce((sum, each) => sum + of(each), 0) / late.length;
  const [seconds, bytes] = [mean((each) => each.seconds), mean((each) => each.pssBytes)];
  let [above, below] = [0, 0];
  for (const each of late) {
    above += (each.seconds - seconds) * (each.pssBytes - bytes);
    below += (each.seconds - seconds) ** 2;
  }
  return below === 0 ? 0 : (above / below) * 3600;
}

/** What is left, in words. `slack`: descriptors that a process may have more than it had (a log, a timer). */
export function remains(before: Sample, after: Sample, slack: number): string[] {
  const found: string[] = [];
  const most = (what: string, was: number, is: number): void => {
    if (is > was + slack) found.push(`${what}: ${is} descriptors, ${was} before`);
  };
  if (after.processes !== before.processes) found.push(`${after.processes} processes, ${before.processes} before`);
  most("the primary", before.primaryDescriptors, after.primaryDescriptors);
  most("a worker", before.workerDescriptors, after.workerDescriptors);
  const files = after.files.filter((name) => !before.files.includes(name));
  if (files.length > 0) found.push(`files: ${files.join(", ")}`);
  return found;
}
