/**
 * USR2, on the side that arrives. It takes what upgrade.ts hands over, brings its workers up beside the old ones, and
 * is the main primary when it is told so. Until then the old one decides: when it closes the channel this process
 * ends. Afterwards the channel's end says that the old one has gone.
 */
import type { HandedSessions } from "../admin/auth.ts";
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Config } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import { HANDOVER_FD, HANDOVER_PROTOCOL, type Manifest } from "../control/handover-messages.ts";
import { AdmissionTable } from "../os/admission-table.ts";
import { CloseRings } from "../os/close-rings.ts";
import { closeDescriptor } from "../os/descriptors.ts";
import { TicketKeys } from "../os/ticket-keys.ts";
import { createTopicMemory, isTopicMemory } from "../os/topic-rings.ts";
import { HandoverChannel, type Received } from "./handover-channel.ts";
import { stillFor } from "./hang.ts";
import type { Origin } from "./origin.ts";
import type { Primary } from "./primary.ts";
import { Rows } from "./rows.ts";
import { Slots } from "./slots.ts";
import type { SocketPlace } from "./socket-names.ts";
import type { Handed } from "./upgrade.ts";

/** The old one reads and answers at once. */
const ANSWER_MS = 10_000;
/** It watches this one for its own proving time, which this one need not know. */
const TRIAL_STILL_MS = 2_000;
const UNTIL_TOLD = Number.POSITIVE_INFINITY;

export interface Takeover {
  readonly channel: HandoverChannel;
  readonly origin: Origin;
  readonly handed: Handed;
  /** Sockets that the new configuration does not know: closed here, the old generation serves them to its end. */
  readonly dropped: readonly SocketPlace[];
  /** As configured; but what it was scaled to at run time stays, unless the new configuration wants another number. */
  readonly workers: number;
  /**
   * The generation before counts connections in a layout that this one does not know: until it has gone, each admits
   * up to the limits by itself.
   */
  readonly countsApart: boolean;
  /** The generation before. */
  readonly before: { readonly generation: number; readonly pid: number };
}

/** Takes the sockets of listeners that `config` has too; the others are the old one's to close. */
export async function beginTakeover(config: Config, version: string): Promise<Takeover> {
  const channel = new HandoverChannel(HANDOVER_FD);
  await channel.send({ type: "hello", protocol: HANDOVER_PROTOCOL, pid: process.pid, version });
  const { message: manifest } = await channel.receive("manifest", "the manifest", ANSWER_MS);
  const { slots, dropped } = await receiveSockets(channel, manifest, config);
  const { fds } = await channel.receive("state", "the old primary's state", ANSWER_MS);
  const [table = -1, control = -1, lock = -1, memory = -1, wake = -1, keys = -1, closed = -1, admin = -1, ...later] =
    fds;
  // What a later version gives over, and this one does not know, must not be held open: its clients would wait for ever.
  for (const fd of later) closeDescriptor(fd);
  const generation = manifest.generation + 1;
  const shared = AdmissionTable.attach(table, wake);
  const admission = shared ?? AdmissionTable.create();
  admission.claimHalf(generation);
  // Another version's: its workers and ours do not hear each other's topics.
  const topics = isTopicMemory(memory) ? memory : createTopicMemory();
  // Without them clients make a new session, and nothing worse.
  const tickets = TicketKeys.attach(keys) ?? TicketKeys.create(Date.now());
  const closes = CloseRings.attach(closed) ?? CloseRings.create();
  return {
    channel,
    origin: { generation, admission, topics, tickets, closes, rows: new Rows(manifest.rows), slots },
    handed: {
      control,
      lock,
      path: manifest.control,
      ...(manifest.admin !== undefined && admin >= 0 ? { admin: { key: manifest.admin, fd: admin } } : {}),
    },
    dropped,
    countsApart: !shared,
    workers: config.workers === manifest.workers ? manifest.wanted : config.workers,
    before: { generation: manifest.generation, pid: manifest.pid },
  };
}

async function receiveSockets(
  channel: HandoverChannel,
  manifest: Manifest,
  config: Config,
): Promise<{ slots: Slots; dropped: SocketPlace[] }> {
  const { listeners } = manifest;
  const total = manifest.slots * listeners.length;
  const all: number[] = [];
  while (all.length < total) {
    const { fds } = await channel.receive("sockets", "the listening sockets", ANSWER_MS);
    if (fds.length === 0) throw new HeadraceError("change-failed", "the old primary sent no sockets");
    all.push(...fds);
  }
  const wanted = new Set(config.listeners.map(listenerKey));
  const slots = new Slots();
  slots.least = manifest.least;
  const dropped: SocketPlace[] = [];
  for (const { key, shared } of listeners) if (shared) slots.share(key);
  for (const [index, fd] of all.entries()) {
    const key = listeners[index % listeners.length]?.key ?? "";
    const slot = Math.floor(index / listeners.length);
    if (wanted.has(key)) {
      slots.keepAs(slot, key, fd);
    } else {
      closeDescriptor(fd);
      dropped.push({ key, slot });
    }
  }
  return { slots, dropped };
}

export interface TakeoverOptions {
  readonly takeover: Takeover;
  readonly primary: Primary;
  readonly log: Logger;
  /** Nobody restarts the service should both generations end. */
  readonly alone: boolean;
  /** Who is signed in at the admin server of the generation before. */
  readonly onSignedIn: (signedIn: HandedSessions) => void;
}

/** Resolves `true` when this is the main primary, `false` when it is to end. Throws what its own start failed on. */
export async function completeTakeover(options: TakeoverOptions): Promise<boolean> {
  const { takeover, primary, log, alone, onSignedIn } = options;
  const { channel } = takeover;
  if (!(await primary.arm())) return false;
  try {
    await channel.send({ type: "armed" });
    await channel.receive("commit", "the order to accept", UNTIL_TOLD, primary.stopSignal);
  } catch (error) {
    if (primary.state === "stopping") return false;
    // Where a service manager starts the service anew, two that each think they are it would be worse than none.
    if (!alone) throw error;
    log.error("the old primary has gone before it handed over: taking over at once");
  }
  if (!(await primary.open())) return false;
  if (!channel.open) return true;
  const watch = watchTrial(channel, primary);
  try {
    await channel.send({ type: "accepting" });
    const order = "the order to be the main process";
    const { message } = await channel.receive("main", order, UNTIL_TOLD, primary.stopSignal);
    if (message.admin) onSignedIn(message.admin);
  } catch (error) {
    if (primary.state === "stopping") return false;
    if (!alone || channel.open) throw error;
    log.error("the old primary has gone before it handed over: taking over at once");
  } finally {
    clearInterval(watch);
  }
  return true;
}

/** On trial, a worker that stands still is a fault long before it would be killed for it. */
function watchTrial(channel: HandoverChannel, { crew }: Primary): NodeJS.Timeout {
  return setInterval(() => {
    const still = crew.accepting.find((worker) => stillFor(crew, worker) > TRIAL_STILL_MS);
    if (!still) return;
    const message = `worker ${still.slot} of the new generation stands still for ${TRIAL_STILL_MS / 1000} s`;
    channel.send({ type: "failed", message }).catch(() => {});
  }, TRIAL_STILL_MS / 4);
}

/** From now on: takes the connections that the old workers give. `onGone`: the old generation has ended. */
export function serveDeparting(
  { channel, before: { generation } }: Takeover,
  primary: Primary,
  log: Logger,
  onGone: () => void,
): void {
  channel.listen(
    (received) => takeConnections(received, primary, log),
    () => {
      channel.close();
      log.info({ generation }, `generation ${generation} has gone`);
      onGone();
    },
  );
}

/** To the worker of the same slot, else to the one with the fewest connections. */
function takeConnections({ message, fds }: Received<unknown>, { crew, state }: Primary, log: Logger): void {
  const { type, slot } = message as { type: string; slot: number };
  const [fd = -1] = fds;
  const fewest = crew.accepting.toSorted((a, b) => crew.openOf(a) - crew.openOf(b))[0];
  const owner = crew.ownerOf(slot);
  const to = owner?.state === "accepting" ? owner : fewest;
  try {
    // Closing the end unused tells the giver that its connections stay with it, and drain.
    if (type === "connections" && to && state !== "stopping") crew.receive(to, fd);
  } catch (err) {
    log.warn({ err }, "connections of the generation before could not be taken; they drain there");
  } finally {
    for (const each of fds) closeDescriptor(each);
  }
}
