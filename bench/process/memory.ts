/**
 * Memory of a process tree as its proportional share (PSS): a page that three processes share counts a third in each,
 * so the sum over a primary and its workers counts it once. Kernel memory of the sockets is in no process and so not
 * in here, for no peer.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Bytes. */
export function pssBytes(pids: readonly number[]): number {
  let sum = 0;
  for (const pid of pids) {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
    sum += Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1]) * 1024;
  }
  return sum;
}

/** Sockets held open, to see that the idle connections are still there. */
export function countSockets(pids: readonly number[]): number {
  const isSocket = (path: string): boolean => {
    try {
      return readlinkSync(path).startsWith("socket:");
    } catch {
      return false; // Closed after the listing.
    }
  };
  return pids.flatMap((pid) => readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`)).filter(isSocket)
    .length;
}

/** Whether a handler for `signal` is installed (SigCgt of /proc/PID/status). */
export function catchesSignal(pid: number, signal: number): boolean {
  const mask = /^SigCgt:\s+([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}
