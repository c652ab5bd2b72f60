/**
 * HUP: from one configuration to another, with every connection kept. What can change in place does; for the rest
 * the workers are replaced one by one, the first of them on trial. Until the trial is over nothing has changed; what
 * fails after it is rolled back to the configuration before.
 *
 *   check ─► bind added addresses ─► trial ─► slot by slot ─► close removed addresses
 *      └────────────┴──────────────────┴────────────┴──► (failure) back to what was
 */
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type ConfigChange, planChange } from "../config/change.ts";
import type { Config, ListenerConfig } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import type { OnStep } from "../control/status.ts";
import { errnoName } from "../os/errno.ts";
import { applySocket } from "../os/listening.ts";
import { packSocketOptions } from "../os/socket.ts";
import { bindMissing } from "./binding.ts";
import type { Crew } from "./crew.ts";
import { type Passed, succeed } from "./succession.ts";

export interface ReloadOptions {
  readonly crew: Crew;
  readonly log: Logger;
  readonly before: Config;
  readonly after: Config;
  /** Replace the workers even when nothing asks for it: they run the code that is on disk now. */
  readonly replace: boolean;
  readonly onStep: OnStep;
}

export interface Reloaded {
  readonly replaced: number;
  readonly moved: number;
  readonly kept: number;
  /** Options that changed in place. */
  readonly live: number;
}

/** How long the first replaced worker is watched before the others follow; a death so early counts as a failed start. */
const TRIAL_MS = 1_000;

function refuseRestart({ restart }: ConfigChange): void {
  if (restart.length > 0) throw new HeadraceError("change-refused", `${restart.join("; ")} (nothing was changed)`);
}

/** Throws why it failed; the server runs on with the configuration before. `workers` is not this function's. */
export async function reload(options: ReloadOptions): Promise<Reloaded> {
  const { crew, before, after, replace } = options;
  const change = planChange(before, after);
  refuseRestart(change);
  const live = change.live.length;
  const inPlace = !replace && change.workers.length === 0 && change.added.length === 0 && change.removed.length === 0;
  try {
    bindMissing(crew.slots, crew.slots.count, change.added);
    applySockets(crew, after.listeners);
    if (inPlace) {
      await configureAll(crew, before, after);
      return { replaced: 0, moved: 0, kept: 0, live };
    }
    const passed = await replaceAll(options, { ...after, listeners: [...after.listeners, ...change.removed] });
    unlist(crew, after, change.removed);
    return { ...passed, live };
  } catch (error) {
    for (const listener of change.added) crew.slots.removeListener(listener);
    applySockets(crew, before.listeners);
    throw error;
  }
}

/** The first worker speaks for all: they run the same services. */
async function configureAll(crew: Crew, before: Config, after: Config): Promise<void> {
  const done = [];
  for (const worker of crew.accepting) {
    // One that dies meanwhile is replaced by one that starts with it.
    const problem = await crew.configure(worker, after).catch(() => undefined);
    if (problem === undefined) {
      done.push(worker);
      continue;
    }
    for (const changed of done) await crew.configure(changed, before).catch(() => {});
    throw new HeadraceError("change-failed", problem);
  }
  for (const slot of crew.slots.indices) crew.intend(slot, after);
}

/** One after the other; on failure those that were replaced get the old configuration back. */
async function replaceAll(
  { crew, log, before, onStep }: ReloadOptions,
  config: Config,
): Promise<Omit<Reloaded, "live">> {
  const done: number[] = [];
  const total = { replaced: 0, moved: 0, kept: 0 };
  const add = ({ moved, kept }: Passed): void => {
    total.replaced += 1;
    total.moved += moved;
    total.kept += kept;
  };
  try {
    for (let slot = 0; slot < crew.wanted; slot++) {
      onStep({ what: "replacing workers", done: done.length, of: crew.wanted });
      const options = { crew, log, proveMs: done.length === 0 ? TRIAL_MS : 0 };
      try {
        add(await succeed(slot, config, options));
      } catch (error) {
        if (done.length === 0 || crew.closed) throw error;
        log.warn({ worker: slot, reason: messageOf(error) }, `worker ${slot} could not be replaced; trying once more`);
        add(await succeed(slot, config, options));
      }
      done.push(slot);
    }
    return total;
  } catch (error) {
    if (crew.closed) throw error;
    if (done.length > 0) log.warn({ slots: done }, "rolling back to the configuration before");
    for (const [index, slot] of done.entries()) {
      crew.intend(slot, before);
      onStep({ what: "rolling workers back", done: index, of: done.length });
      await succeed(slot, before, { crew, log, proveMs: 0 }).catch((err) =>
        log.error({ worker: slot, err }, `worker ${slot} could not be rolled back`),
      );
    }
    throw error;
  }
}

/** Sockets live on over a reload, so their options are set where they are. */
function applySockets(crew: Crew, listeners: readonly ListenerConfig[]): void {
  for (const listener of listeners) {
    for (const slot of crew.slots.indices) {
      const fd = crew.slots.socket(slot, listener);
      const result = applySocket(listener.address, fd, packSocketOptions(listener.socket));
      if (result < 0) {
        throw new HeadraceError("change-failed", `socket options of "${listener.name}": ${errnoName(result)}`);
      }
    }
  }
}

/** Our copies go first: so the workers, who accept what is queued, are the last holders. */
function unlist(crew: Crew, after: Config, removed: readonly ListenerConfig[]): void {
  if (removed.length === 0) return;
  for (const listener of removed) crew.slots.removeListener(listener);
  const keys = removed.map(listenerKey);
  for (const worker of crew.accepting) {
    worker.send({ type: "unlist", keys });
    // What it is replaced with has no use for them.
    worker.config = after;
    crew.intend(worker.slot, after);
  }
}
