/**
 * CPU and memory of processes, by pidusage. It keeps one descriptor for each process that it was asked about, and closes
 * it a minute after it was asked last. Invariant: never more than that one. So it is not told to forget (`clear` forgets
 * without closing), and it is asked by one at a time: two that ask about a process for the first time open it twice.
 */
import { setTimeout as sleep } from "node:timers/promises";
import pidusage from "pidusage";
import type { ProcessUsage } from "../control/status.ts";

/** CPU is measured over this long: what a process does now, whenever somebody asked last. */
const WINDOW_MS = 200;

/** Settles when nobody asks any more. */
let asking: Promise<unknown> = Promise.resolve();

function figures(pids: readonly number[]): Promise<Record<string, pidusage.Status>> {
  const answer = asking.then(() => pidusage([...pids]));
  asking = answer.catch(() => {});
  return answer;
}

/** Processes that have gone meanwhile are left out. Takes WINDOW_MS. */
export async function usageOf(pids: readonly number[]): Promise<ReadonlyMap<number, ProcessUsage>> {
  const usage = new Map<number, ProcessUsage>();
  try {
    const before = await figures(pids);
    await sleep(WINDOW_MS);
    const after = await figures(pids);
    for (const pid of pids) {
      const [first, last] = [before[pid], after[pid]];
      if (!first || !last) continue;
      const cpuPercent = (100 * (last.ctime - first.ctime)) / (last.timestamp - first.timestamp);
      usage.set(pid, { cpuPercent: Math.round(cpuPercent * 10) / 10, memoryBytes: last.memory });
    }
  } catch {
    // A hidden /proc: status is still worth having.
  }
  return usage;
}
