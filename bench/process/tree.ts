/**
 * Which processes belong to a server: it and everything it has forked, read from /proc. A process is remembered with
 * its start time, so that a recycled pid is never mistaken for it (proc(5), field 22 of stat).
 */
import { readdirSync, readFileSync } from "node:fs";

interface ProcessEntry {
  pid: number;
  parent: number;
  /** Clock ticks after boot. */
  startTicks: string;
}

/** The fields of /proc/PID/stat after the command name, state first. Undefined when there is no such process. */
export function readStat(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

function readEntry(pid: number): ProcessEntry | undefined {
  const fields = readStat(pid);
  if (fields === undefined || fields[0] === "Z") return undefined;
  return { pid, parent: Number(fields[1]), startTicks: fields[19] ?? "" };
}

/** `root` first, then its descendants. Empty when it is gone. */
export function processTree(root: number): ProcessEntry[] {
  const entries = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readEntry(Number(name)) ?? []);
  const tree = entries.filter((entry) => entry.pid === root);
  for (const member of tree) tree.push(...entries.filter((entry) => entry.parent === member.pid));
  return tree;
}

/** Whether this very process still runs (a zombie does not). */
function isAlive(entry: ProcessEntry): boolean {
  return readEntry(entry.pid)?.startTicks === entry.startTicks;
}

/** Kills those that still run and returns how many there were. */
export function killSurvivors(entries: readonly ProcessEntry[]): number {
  let killed = 0;
  for (const entry of entries) {
    if (!isAlive(entry)) continue;
    try {
      process.kill(entry.pid, "SIGKILL");
      killed++;
    } catch {
      // It ended by itself between the look and the signal.
    }
  }
  return killed;
}
