/**
 * Profiles of this process, written to files that must not exist and that nobody else can read. V8's inspector takes
 * them, without a port: nothing can connect to it.
 */
import { closeSync, openSync } from "node:fs";
import { open } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { setTimeout as pause } from "node:timers/promises";
import { writeHeapSnapshot } from "node:v8";

/** Microseconds between two samples. */
const INTERVAL_US = 1_000;

/** Of so many seconds, or until `signal` is aborted. Ending it takes a moment in which the event loop stands still. */
export async function profileCpu(path: string, seconds: number, signal: AbortSignal): Promise<void> {
  const file = await open(path, "wx", 0o600);
  const session = new Session();
  try {
    session.connect();
    await session.post("Profiler.enable");
    await session.post("Profiler.setSamplingInterval", { interval: INTERVAL_US });
    await session.post("Profiler.start");
    await pause(seconds * 1_000, undefined, { signal, ref: false }).catch(() => {});
    const { profile } = await session.post("Profiler.stop");
    await file.writeFile(JSON.stringify(profile));
  } finally {
    session.disconnect();
    await file.close();
  }
}

/** The event loop stands still until it is written, about a second for every 100 MiB of heap. */
export function snapshotHeap(path: string): void {
  const fd = openSync(path, "wx", 0o600);
  try {
    // Node itself would write into whatever stands at a path, and follow links.
    writeHeapSnapshot(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}
