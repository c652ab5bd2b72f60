/**
 * CPU and memory of processes, by pidusage. It keeps a descriptor open for each process it was asked about, for a minute
 * after the last time; whoever is asked about twice at once gets two, of which one is never closed, and `clear` closes
 * none. So it is asked by one at a time, and left to forget by itself.
 */
import { setTimeout as sleep } from "node:timers/promises";
import pidusage, { type Status } from "pidusage";
import type { ProcessUsage } from "../control/status.ts";

/** CPU is measured over this long: what a process does now, whenever somebody asked last. */
const WINDOW_MS = 200;

let turn: Promise<unknown> = Promise.resolve();

/** By pid; without those that have gone. */
function ask(pids: readonly number[]): Promise<Readonly<Record<number, Status>>> {
  // Whatever the last one came to.
  const answer = turn.then(() => pidusage([...pids]));
  turn = answer.catch(() => {});
  return answer;
}

/** Processes that have gone meanwhile are left out. Takes WINDOW_MS. */
export async function usageOf(pids: readonly number[]): Promise<ReadonlyMap<number, ProcessUsage>> {
  const usage = new Map<number, ProcessUsage>();
  try {
    const before = await ask(pids);
    await sleep(WINDOW_MS);
    const after = await ask(pids);
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
