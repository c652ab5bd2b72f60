/**
 * Finds workers whose event loop stands still: their clock in the scoreboard, which ticks every 50 ms, is too old.
 * Such a worker can neither serve nor stop; it is killed, and replaced like any that dies. Its clients' next
 * connections have been served by a sibling since 250 ms after it stopped (src/worker/siblings.ts).
 */

import type { Logger } from "../base/log.ts";
import type { Deadline } from "../base/settings.ts";
import type { Crew } from "./crew.ts";
import { monotonicMs } from "./monotonic.ts";
import type { WorkerProcess } from "./worker-process.ts";

const LOOK_MS = 250;
/** When this process itself was not run for so long (suspended, starved), the workers' clocks prove nothing yet. */
const OWN_LATE_MS = 1_000;

/** How long a serving worker's event loop has stood still, ms. */
export function stillFor(crew: Crew, worker: WorkerProcess): number {
  return monotonicMs() - crew.clockOf(worker);
}

/** Kills who hangs. Returns what ends the watch. */
export function watchHangs(crew: Crew, hangMs: () => Deadline, log: Logger): () => void {
  let looked = monotonicMs();
  const timer = setInterval(() => {
    const late = monotonicMs() - looked > OWN_LATE_MS;
    looked = monotonicMs();
    const limit = hangMs();
    if (late || limit === "off") return;
    for (const worker of crew.all) {
      if (worker.state !== "accepting" && worker.state !== "retired") continue;
      const still = stillFor(crew, worker);
      if (still <= limit || (crew.excused.get(worker) ?? 0) > performance.now()) continue;
      log.error(
        { worker: worker.slot, workerPid: worker.pid, stillMs: Math.round(still) },
        `worker ${worker.slot} hangs: its event loop has stood still for ${(still / 1000).toFixed(1)} s; killing it`,
      );
      worker.kill();
    }
  }, LOOK_MS);
  return () => clearInterval(timer);
}
