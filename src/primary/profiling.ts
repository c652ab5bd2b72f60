/**
 * Takes profiles, one at a time: a worker writes its own to a file in the runtime directory, which is opened and
 * unlinked here, and read by whoever asked. A heap snapshot stops the worker's event loop for as long as it takes; it
 * is not taken for one that hangs meanwhile.
 */
import { open, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { HeadraceError } from "../base/errors.ts";
import type { ProfileRequest, TakenProfile } from "../control/inspection.ts";
import { profileCpu, snapshotHeap } from "../os/profile.ts";
import type { Crew } from "./crew.ts";
import type { WorkerProcess } from "./worker-process.ts";

/** Beyond the seconds of a CPU profile. */
const WRITE_MS = 20_000;
const SNAPSHOT_MS = 120_000;
/** Until its clock ticks again. */
const RECOVER_MS = 2_000;

export class Profiling {
  readonly #crew: Crew;
  readonly #directory: string;
  #busy = false;
  #taken = 0;

  constructor(crew: Crew, control: string) {
    this.#crew = crew;
    this.#directory = dirname(control);
  }

  async take(request: ProfileRequest, signal: AbortSignal): Promise<TakenProfile> {
    const { kind, target } = request;
    const worker = target === "primary" ? undefined : this.#workerOf(target);
    if (this.#busy) throw new HeadraceError("busy", "a profile is being taken already; try again when it is done");
    this.#busy = true;
    const extension = kind === "cpu" ? "cpuprofile" : "heapsnapshot";
    const path = join(this.#directory, `profile-${process.pid}-${++this.#taken}.${extension}`);
    try {
      if (worker) await this.#ofWorker(worker, request, path, signal);
      else if (kind === "cpu") await profileCpu(path, request.seconds, signal);
      else snapshotHeap(path);
      const file = await open(path, "r");
      const { size } = await file.stat();
      const who = worker ? `worker-${worker.slot}` : "primary";
      return { name: `headrace-${who}.${extension}`, bytes: size, content: file.createReadStream() };
    } finally {
      this.#busy = false;
      await unlink(path).catch(() => {});
    }
  }

  #workerOf(slot: number): WorkerProcess {
    const worker = this.#crew.ownerOf(slot);
    if (worker) return worker;
    const there = this.#crew.owners.map((each) => each.slot).join(", ");
    throw new HeadraceError("not-found", `there is no worker ${slot}; there are: ${there || "none"}`);
  }

  async #ofWorker(worker: WorkerProcess, request: ProfileRequest, path: string, signal: AbortSignal): Promise<void> {
    const { kind, seconds } = request;
    if (kind === "heap") {
      const { excused } = this.#crew;
      excused.set(worker, performance.now() + SNAPSHOT_MS);
      try {
        await worker.ask("heapSnapshot", { path }, SNAPSHOT_MS);
      } finally {
        excused.set(worker, performance.now() + RECOVER_MS);
      }
      return;
    }
    const end = (): void => void worker.ask("endProfile", {}, WRITE_MS).catch(() => {});
    signal.addEventListener("abort", end, { once: true });
    try {
      await worker.ask("cpuProfile", { path, seconds }, seconds * 1_000 + WRITE_MS);
    } finally {
      signal.removeEventListener("abort", end);
    }
  }
}
