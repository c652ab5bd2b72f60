/**
 * Waits for a process that is not our child. One whose descriptors are closed is still being torn down, for a hundredth
 * of a second or more: a service manager that sees the main process end meanwhile kills what is left, and says so.
 */
import { setTimeout as pause } from "node:timers/promises";

const POLL_MS = 5;

/** Resolves when there is no such process, or after `withinMs`: nobody may have reaped it. */
export async function ended(pid: number, withinMs: number): Promise<void> {
  for (const until = performance.now() + withinMs; performance.now() < until; await pause(POLL_MS)) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
  }
}
