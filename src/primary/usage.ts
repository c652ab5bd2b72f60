/**
 * CPU and memory of processes, by pidusage. It keeps a descriptor open for each process it was asked about, for a minute
 * after the last time; whoever is asked about twice at once gets two, of which one is never closed, and `clear` closes
 * none. So it is asked by one at a time, and left to forget by itself.
 */
import { setTimeout as sleep } from "node:timers/promises";
import pidusage from "pidusage";
import type { ProcessUsage } from "../control/status.ts";

/** CPU is measured over this long: what a process does now, whenever somebody asked last. */
const WINDOW_MS = 200;

/** pidusage closes its descriptors when they were not used for so long. `clear()` only forgets them, open. */
const KEPT_MS = 5_000;

/** Of one process, at one moment. */
export interface UsageSample {
  readonly cpuMs: number;
  readonly memoryBytes: number;
  readonly atMs: number;
}

let sampling: Promise<unknown> = Promise.resolve();

/**
 * CPU time since the start and resident memory. Processes that have gone meanwhile are left out; none is there when
 * /proc is hidden.
 */
export function sampleUsage(pids: readonly number[]): Promise<ReadonlyMap<number, UsageSample>> {
  const sample = sampling.then(() => read(pids));
  sampling = sample;
  return sample;
}

async function read(pids: readonly number[]): Promise<ReadonlyMap<number, UsageSample>> {
  const usage = new Map<number, UsageSample>();
  try {
    for (const [pid, stat] of Object.entries(await pidusage([...pids], { maxage: KEPT_MS }))) {
      // Typed as if none could have gone.
      const { ctime, memory, timestamp } = (stat as typeof stat | null) ?? {};
      if (ctime === undefined || memory === undefined || timestamp === undefined) continue;
      usage.set(Number(pid), { cpuMs: ctime, memoryBytes: memory, atMs: timestamp });
    }
  } catch {
    // All have gone, or a hidden /proc: whoever asks has other figures that are worth having.
  }
  return usage;
}

/** What they do now. Takes WINDOW_MS. */
export async function usageOf(pids: readonly number[]): Promise<ReadonlyMap<number, ProcessUsage>> {
  const usage = new Map<number, ProcessUsage>();
  const before = await sampleUsage(pids);
  await sleep(WINDOW_MS);
  for (const [pid, last] of await sampleUsage(pids)) {
    const first = before.get(pid);
    if (!first) continue;
    const cpuPercent = (100 * (last.cpuMs - first.cpuMs)) / (last.atMs - first.atMs);
    usage.set(pid, { cpuPercent: Math.round(cpuPercent * 10) / 10, memoryBytes: last.memoryBytes });
  }
  return usage;
}
