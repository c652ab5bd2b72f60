/**
 * Takes profiles, one at a time: a worker writes its own to a file in the runtime directory, which is opened and
 * unlinked here, and read by whoever asked. A heap snapshot stops the worker's event loop for as long as it takes; it
 * is not taken for one that hangs meanwhile. No file stays behind: a stop ends the profile and waits for that, and a start
 * removes those of a server that was killed.
 */
import { randomBytes } from "node:crypto";
import { readdirSync, unlinkSync } from "node:fs";
import { open, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
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

const RANDOM_BYTES = 8;
const REST = /^[0-9a-f]{16}\.(?:cpuprofile|heapsnapshot)$/;

/** Its files bear the name of the control socket, which no two servers share. */
const prefixOf = (control: string): string => `${basename(control)}.profile-`;

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // One that may be used, but not be read.
    return [];
  }
}

/** Removes what a server that was killed has left. For whoever owns the control socket, before anybody takes a profile. */
export function removeProfiles(control: string): void {
  const [directory, prefix] = [dirname(control), prefixOf(control)];
  for (const name of namesIn(directory)) {
    if (!name.startsWith(prefix) || !REST.test(name.slice(prefix.length))) continue;
    try {
      unlinkSync(join(directory, name));
    } catch {
      // Somebody else's: it harms nobody here.
    }
  }
}

export class Profiling {
  readonly #crew: Crew;
  readonly #control: string;
  readonly #stop: AbortSignal;
  #running: Promise<unknown> | undefined;

  /** `stop`: aborted when the server begins to stop, or to leave. */
  constructor(crew: Crew, control: string, stop: AbortSignal) {
    this.#crew = crew;
    this.#control = control;
    this.#stop = stop;
  }

  /** Resolves when no profile is being taken. Never rejects. */
  async idle(): Promise<void> {
    await this.#running?.catch(() => {});
  }

  async take(request: ProfileRequest, signal: AbortSignal): Promise<TakenProfile> {
    const { target } = request;
    const worker = target === "primary" ? undefined : this.#workerOf(target);
    if (this.#running) throw new HeadraceError("busy", "a profile is being taken already; try again when it is done");
    if (this.#stop.aborted) throw new HeadraceError("no-answer", "the server stops");
    const running = this.#take(worker, request, signal);
    this.#running = running;
    try {
      return await running;
    } finally {
      this.#running = undefined;
    }
  }

  async #take(worker: WorkerProcess | undefined, request: ProfileRequest, asker: AbortSignal): Promise<TakenProfile> {
    const { kind } = request;
    const extension = kind === "cpu" ? "cpuprofile" : "heapsnapshot";
    const name = `${prefixOf(this.#control)}${randomBytes(RANDOM_BYTES).toString("hex")}.${extension}`;
    const path = join(dirname(this.#control), name);
    const ending = new AbortController();
    const end = (): void => ending.abort();
    const { signal } = ending;
    for (const each of [asker, this.#stop]) each.addEventListener("abort", end, { once: true });
    try {
      if (worker) await this.#ofWorker(worker, request, path, signal);
      else if (kind === "cpu") await profileCpu(path, request.seconds, signal);
      else snapshotHeap(path);
      const file = await open(path, "r");
      const { size } = await file.stat();
      const who = worker ? `worker-${worker.slot}` : "primary";
      return { name: `headrace-${who}.${extension}`, bytes: size, content: file.createReadStream() };
    } finally {
      for (const each of [asker, this.#stop]) each.removeEventListener("abort", end);
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
