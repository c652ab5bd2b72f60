/**
 * More or fewer workers, and nobody is refused, reset or left waiting.
 *
 * More: a slot's first worker binds its sockets, everybody gets copies, it accepts; then the others give it a fair
 * share of the connections. Fewer: the kernel is told to prefer the slots that stay (SO_ATTACH_REUSEPORT_CBPF), the
 * last handshakes arrive, the queue is accepted, the last slot's sockets are closed by everybody, and its
 * connections move to those that stay. Where newcomers wait in the queue for a place, and find none in time, the
 * worker goes all the same: its sockets stay, and siblings serve them. Slots are removed from the end only: so a
 * slot's number is its place in the kernel's group, which the steering needs.
 */
import { setTimeout as pause } from "node:timers/promises";
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { within } from "../base/within.ts";
import type { Config } from "../config/config.ts";
import type { OnStep } from "../control/status.ts";
import { descriptorLimit } from "../engine/engine.ts";
import { addon } from "../os/addon.ts";
import { check } from "../os/errno.ts";
import { steerSocket } from "../os/listening.ts";
import { bindMissing } from "./binding.ts";
import type { Crew } from "./crew.ts";
import { type Attempt, moveAll, nothingPassed } from "./succession.ts";
import type { WorkerProcess } from "./worker-process.ts";

export interface ScaleOptions {
  readonly crew: Crew;
  readonly log: Logger;
  readonly config: Config;
  readonly onStep: OnStep;
}

/** For a handshake that began before the steering to end: the round trip of a distant client, with a repetition. */
const SETTLE_MS = 1_000;
/** How often the queue of a slot that is to go is looked at. */
const QUEUE_LOOK_MS = 50;
/** What a worker needs beside connections and listening sockets: channels, the log, the service's own. */
const RESERVED_DESCRIPTORS = 256;

/** Refuses what would not fit, before anything is begun. `to`: workers that remain. */
export function checkRoom(crew: Crew, to: number): void {
  const open = crew.all.reduce((total, worker) => total + crew.openOf(worker), 0);
  const limit = descriptorLimit();
  const reserved = RESERVED_DESCRIPTORS + crew.slots.count * crew.rows.used.length;
  const room = to * Math.max(0, limit - reserved);
  if (open <= room) return;
  throw new HeadraceError(
    "change-failed",
    `${open} connections do not fit ${to} worker${to === 1 ? "" : "s"}: each may hold ${limit} descriptors (RLIMIT_NOFILE), ${reserved} of them reserved`,
    { option: "RLIMIT_NOFILE", given: String(open), allowed: String(room) },
  );
}

/** Connections to each of the new ones, so that all have about the same. Returns how many moved. */
async function rebalance(crew: Crew, fresh: readonly WorkerProcess[], log: Logger): Promise<number> {
  const movable = crew.accepting.filter((worker) => !fresh.includes(worker) && !worker.handsOff);
  const total = crew.accepting.reduce((sum, worker) => sum + crew.openOf(worker), 0);
  const share = Math.floor(total / crew.accepting.length);
  let moved = 0;
  for (const to of fresh) {
    for (const from of movable) {
      const most = Math.min(crew.openOf(from) - share, share - crew.openOf(to));
      if (most <= 0) continue;
      try {
        moved += (await within(from.config.drainMs, crew.move(from, to, { most, handOff: false }), nothingPassed))
          .moved;
      } catch (err) {
        log.warn({ err, from: from.slot, to: to.slot }, "connections could not be moved; they stay");
      }
    }
  }
  return moved;
}

/** Brings a new slot's first worker to hold its sockets, and everybody else too. */
async function equipFirst(worker: WorkerProcess, crew: Crew, { listeners }: Config): Promise<void> {
  const { slots } = crew;
  const exists = worker.slot < slots.count;
  const shared = listeners.filter((listener) => slots.shared(listener));
  if (exists) {
    crew.announce();
    return crew.equip(worker);
  }
  await worker.loaded();
  if (shared.length > 0) {
    for (const listener of shared) slots.copyShared(worker.slot, listener);
    bindMissing(slots, slots.count, listeners);
    crew.announce();
    return crew.equip(worker);
  }
  await crew.bind(worker, false);
  // It lacks the sockets of its siblings; they lack its own.
  crew.announce();
}

export async function grow(to: number, { crew, log, config, onStep }: ScaleOptions): Promise<number> {
  const fresh: WorkerProcess[] = [];
  const from = crew.wanted;
  for (let slot = from; slot < to; slot++) {
    onStep({ what: "adding workers", done: slot - from, of: to - from });
    const worker = crew.hire(slot, config);
    try {
      await equipFirst(worker, crew, config);
      await crew.open(worker);
      crew.install(worker);
    } catch (error) {
      worker.kill();
      // Those that came before it go again.
      if (!crew.closed) await shrink(from, { crew, log, config, onStep });
      throw error;
    }
    crew.wanted = slot + 1;
    log.info({ worker: slot, workerPid: worker.pid }, `worker ${slot} was added`);
    fresh.push(worker);
  }
  if (!config.migration.enabled || !config.migration.rebalance) return 0;
  onStep({ what: "moving connections to new workers", done: to - from, of: to - from });
  return rebalance(crew, fresh, log);
}

/** `count`: sockets that go on getting connections; "off": as the kernel likes. */
function steer(crew: Crew, { listeners }: Config, count: number | "off"): void {
  for (const listener of listeners) {
    if (crew.slots.shared(listener)) continue;
    const fd = crew.slots.socket(0, listener);
    const result = count === "off" ? addon().socketUnsteer(fd) : steerSocket(listener.address, fd, count);
    check(result, "steering newcomers");
  }
}

/** Gives what it has to those that stay: to one when a service has state of its own there, else to all alike. */
async function spread(from: WorkerProcess, crew: Crew): Promise<Attempt> {
  const targets = crew.accepting.filter((worker) => worker !== from);
  const total = { moved: 0, kept: 0, cut: targets.length === 0 };
  while (targets.length > 0) {
    targets.sort((a, b) => crew.openOf(a) - crew.openOf(b));
    const to = targets.shift() as WorkerProcess;
    const last = from.handsOff || targets.length === 0;
    const most = Math.ceil(crew.openOf(from) / (targets.length + 1));
    const { moved, kept, cut } = await crew.move(from, to, last ? { handOff: true } : { handOff: false, most });
    total.moved += moved;
    total.kept = kept;
    total.cut ||= cut;
    if (last) break;
  }
  return total;
}

/** A slot's worker, if it has one, gives its connections away and ends. Returns how many moved. */
async function letGo(slot: number, { crew, log, config }: ScaleOptions): Promise<number> {
  const worker = crew.ownerOf(slot);
  crew.vacate(slot);
  if (!worker) return 0;
  let passed = { moved: 0, kept: 0 };
  if (worker.state === "accepting") {
    await crew.retire(worker, false).catch(() => {});
    if (config.migration.enabled) {
      const moving = moveAll(worker, () => spread(worker, crew));
      passed = await within(config.drainMs, moving, nothingPassed).catch((err) => {
        log.warn({ err, worker: slot }, "connections could not be moved; they drain");
        return passed;
      });
    }
  }
  void crew.dismiss(worker, { drainMs: config.drainMs, tlsMs: config.tlsDrainMs, queued: false });
  log.info({ worker: slot, workerPid: worker.pid }, `worker ${slot} was removed`);
  return passed.moved;
}

/** Newcomers in the queues of a slot; a socket that all slots share is not its own. */
function queuedIn(slot: number, { slots }: Crew, { listeners }: Config): number {
  const own = listeners.filter((listener) => !slots.shared(listener) && slots.has(slot, listener));
  return own.reduce((sum, listener) => sum + Math.max(0, addon().socketQueue(slots.socket(slot, listener))), 0);
}

/** Nobody gets into the queues any more. Waits for those who are there to be accepted; false when that takes too long. */
async function emptied(slot: number, { crew, config, log, onStep }: ScaleOptions, until: number): Promise<boolean> {
  while (!crew.closed) {
    const queued = queuedIn(slot, crew, config);
    if (queued === 0) return true;
    if (performance.now() >= until) {
      log.warn({ worker: slot, queued }, `${queued} newcomers wait in slot ${slot}: it stays, and others serve it`);
      return false;
    }
    onStep();
    await pause(QUEUE_LOOK_MS);
  }
  throw new HeadraceError("change-failed", "the server stops");
}

export async function shrink(to: number, options: ScaleOptions): Promise<number> {
  const { crew, config, onStep } = options;
  let keep = Math.max(to, crew.slots.least);
  const removing = crew.slots.count > keep;
  let moved = 0;
  crew.wanted = to;
  try {
    const slots = crew.slots.count;
    if (removing) {
      onStep({ what: "steering newcomers away", done: 0, of: slots - to });
      steer(crew, config, keep);
      await pause(SETTLE_MS);
    }
    const until = performance.now() + config.drainMs;
    for (let slot = slots - 1; slot >= to; slot--) {
      onStep({ what: "removing workers", done: slots - 1 - slot, of: slots - to });
      if (slot >= keep && !(await emptied(slot, options, until))) keep = slot + 1;
      if (slot >= keep) await crew.drop(slot);
      moved += await letGo(slot, options);
    }
  } finally {
    if (removing && !crew.closed) steer(crew, config, "off");
  }
  return moved;
}
