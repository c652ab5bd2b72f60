/** CPU and memory of processes, by pidusage. */
import { setTimeout as sleep } from "node:timers/promises";
import pidusage from "pidusage";
import type { ProcessUsage } from "../control/status.ts";

/** CPU is measured over this long: what a process does now, whenever somebody asked last. */
const WINDOW_MS = 200;

/** Processes that have gone meanwhile are left out. Takes WINDOW_MS. */
export async function usageOf(pids: readonly number[]): Promise<ReadonlyMap<number, ProcessUsage>> {
  const usage = new Map<number, ProcessUsage>();
  try {
    const before = await pidusage([...pids]);
    await sleep(WINDOW_MS);
    const after = await pidusage([...pids]);
    for (const pid of pids) {
      const [first, last] = [before[pid], after[pid]];
      if (!first || !last) continue;
      const cpuPercent = (100 * (last.ctime - first.ctime)) / (last.timestamp - first.timestamp);
      usage.set(pid, { cpuPercent: Math.round(cpuPercent * 10) / 10, memoryBytes: last.memory });
    }
  } catch {
    // A hidden /proc: status is still worth having.
  } finally {
    // It keeps a descriptor for each process it was asked about, also when that has died.
    pidusage.clear();
  }
  return usage;
}
