/** Open descriptors of a process against its limit, as /proc tells. Of one that has gone: undefined. */
import { readdir, readFile } from "node:fs/promises";

/** "Max open files" of the text of /proc/PID/limits: the soft limit, `Infinity` when there is none. */
export function parseDescriptorLimit(limits: string): number | undefined {
  const word = /^Max open files\s+(\d+|unlimited)\s/m.exec(limits)?.[1];
  return word === undefined ? undefined : word === "unlimited" ? Number.POSITIVE_INFINITY : Number(word);
}

/** RLIMIT_NOFILE of a process. */
export async function descriptorLimitOf(pid: number): Promise<number | undefined> {
  return parseDescriptorLimit(await readFile(`/proc/${pid}/limits`, "utf8").catch(() => ""));
}

/** Descriptors that this process has open, but for the one that counts them. */
export async function ownDescriptors(): Promise<number | undefined> {
  try {
    return (await readdir("/proc/self/fd")).length - 1;
  } catch {
    return undefined;
  }
}
