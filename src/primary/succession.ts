/**
 * A worker takes another's place. Invariants: the predecessor accepts until the successor does, on the same sockets,
 * so nobody is refused or left waiting; until `install` a failure of the successor changes nothing; after it the
 * predecessor gives its connections away and drains what cannot move.
 */
import { setTimeout as pause } from "node:timers/promises";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { within } from "../base/within.ts";
import type { Config } from "../config/config.ts";
import type { Crew } from "./crew.ts";
import type { WorkerProcess } from "./worker-process.ts";

export interface Passed {
  readonly moved: number;
  /** Connections that could not move, and drain. */
  readonly kept: number;
}

/** `cut`: the taker went before its time. */
export type Attempt = Passed & { readonly cut: boolean };

export interface SuccessionOptions {
  readonly crew: Crew;
  readonly log: Logger;
  /** The successor accepts beside its predecessor for this long before it counts as sound. */
  readonly proveMs: number;
}

/** How long a step waits for connections whose requests take long, before the next worker is replaced. */
const MOVE_PATIENCE_MS = 10_000;

/** A replacement of a successor that died accepts within about 200 ms. */
const MOVE_TRIES = 4;
const MOVE_PAUSE_MS = 250;

/** When time is up: what still waits for its requests is drained then. */
export const nothingPassed = (): Passed => ({ moved: 0, kept: 0 });

/** Rejects when the worker ends within `ms`. */
async function survive(worker: WorkerProcess, ms: number): Promise<void> {
  const died = worker.exited.then(() => {
    throw worker.error();
  });
  await within(ms, died, () => {});
}

/** Puts a new worker with `config` into a slot. Throws, and has changed nothing, when it fails before it is proved. */
export async function succeed(slot: number, config: Config, options: SuccessionOptions): Promise<Passed> {
  const { crew, log, proveMs } = options;
  const next = crew.hire(slot, config);
  let before: WorkerProcess | undefined;
  try {
    await crew.equip(next);
    await crew.open(next);
    if (proveMs > 0) await survive(next, proveMs);
    before = crew.install(next);
  } catch (error) {
    next.kill();
    throw error;
  }
  log.info({ worker: slot, workerPid: next.pid, replaces: before?.pid }, `worker ${slot} was replaced`);
  if (!before) return nothingPassed();
  return within(MOVE_PATIENCE_MS, passOn(before, next, options), nothingPassed);
}

/** The predecessor stops accepting, gives its connections to its successor, and drains the rest in the background. */
async function passOn(from: WorkerProcess, to: WorkerProcess, { crew, log }: SuccessionOptions): Promise<Passed> {
  const { drainMs, tlsDrainMs, migration } = from.config;
  const started = performance.now();
  let passed = nothingPassed();
  try {
    await crew.retire(from, false);
    const owner = (): WorkerProcess => crew.ownerOf(from.slot) ?? to;
    const moving = (): Promise<Attempt> => crew.move(from, owner(), { handOff: true });
    if (migration.enabled) passed = await within(drainMs, moveAll(from, moving), nothingPassed);
  } catch (error) {
    if (from.state !== "dead" && from.state !== "stopping") {
      log.warn({ worker: from.slot, reason: messageOf(error) }, "connections could not be moved; they drain");
    }
  }
  const leftMs = Math.max(0, drainMs - (performance.now() - started));
  void crew.dismiss(from, { drainMs: leftMs, tlsMs: tlsDrainMs, queued: false });
  return passed;
}

/**
 * Moves a worker's connections by `attempt`, and again when that was cut: a successor that dies in the midst of it has
 * a replacement a moment later.
 */
export async function moveAll(from: WorkerProcess, attempt: () => Promise<Attempt>): Promise<Passed> {
  let moved = 0;
  for (let tries = 1; ; tries++) {
    const last = tries === MOVE_TRIES;
    const passed = await attempt().catch((error): Attempt => {
      // While the giver is there, it was the taker that could not be told.
      if (from.state === "dead" || from.state === "stopping" || last) throw error;
      return { moved: 0, kept: 0, cut: true };
    });
    moved += passed.moved;
    if (!passed.cut || last) return { moved, kept: passed.kept };
    await pause(MOVE_PAUSE_MS, undefined, { ref: false });
  }
}
