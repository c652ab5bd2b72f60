/**
 * USR2, on the side that leaves: a new primary, from the code now on disk, takes over every socket. Invariant: until
 * the new one has served for the proving time, this one has given up nothing; whatever fails before is undone by
 * ending the new one, and this one, which never stopped accepting, is ready for the next attempt.
 *
 *   check ─► start ─► hello ─► sockets ─► armed ─► commit ─► accepting ─► proved ─► main ─► (drain, end)
 *      └────────┴────────┴────────┴─────────┴────────┴───────────┴──► new one ended, as before
 */
import type { HandedSessions } from "../admin/auth.ts";
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { HANDOVER_PROTOCOL, type Manifest } from "../control/handover-messages.ts";
import { SOCKETS_PER_MESSAGE } from "../control/worker-messages.ts";
import { halfOf } from "../os/admission-table.ts";
import { closeDescriptor, openChannel } from "../os/descriptors.ts";
import type { HandedAdmin } from "./admin-port.ts";
import type { Aftermath } from "./aftermath.ts";
import { HandoverChannel } from "./handover-channel.ts";
import type { Primary } from "./primary.ts";
import { moveAll } from "./succession.ts";
import { checkSuccessor, type Launch, startSuccessor } from "./successor.ts";
import type { WorkerProcess } from "./worker-process.ts";

/** From its start to its first word. */
const HELLO_MS = 20_000;
/** Until all its workers have loaded their services. */
const ARMED_MS = 60_000;
/** From commit until all of them accept. */
const ACCEPTING_MS = 5_000;

export interface Handed {
  /** Listening control socket and its lock. */
  readonly control: number;
  readonly lock: number;
  readonly path: string;
  /** The admin server's socket. */
  readonly admin?: HandedAdmin;
}

export interface UpgradeOptions {
  readonly primary: Primary;
  readonly log: Logger;
  readonly launch: Launch;
  /** Of the upgrade before, if it failed. */
  readonly aftermath: Aftermath;
  readonly handed: Handed;
  /** Who is signed in at the admin server, at the end. */
  readonly signedIn: () => HandedSessions | undefined;
  /** Tells the service manager who is the main process now. Resolves when it knows. */
  readonly announce: (pid: number, status: string) => Promise<void>;
  readonly onStep: () => void;
  /** The new one is the main one: this process has no control socket any more. */
  readonly onDeparted: (channel: HandoverChannel) => void;
}

/** In a container the first process must not end: with it all others do. */
export function refuseAsInit(): void {
  if (process.pid !== 1) return;
  const advice = "start an init as process 1 (docker run --init, tini, dumb-init), or replace the container";
  throw new HeadraceError("change-refused", `upgrade: this is process 1, which cannot be replaced; ${advice}`);
}

export async function upgrade(options: UpgradeOptions): Promise<string> {
  const { primary, log, launch, announce, onStep } = options;
  const { crew, stopSignal } = primary;
  onStep();
  await checkSuccessor(launch, stopSignal);
  await options.aftermath.over();
  const { pid, channel: fd } = await startSuccessor(launch);
  const channel = new HandoverChannel(fd);
  try {
    const version = await handOver(channel, pid, options);
    // Both generations accept; the new one says nothing unless something goes wrong.
    await channel.quiet(primary.config.proveMs, stopSignal);
    const message = `upgraded: process ${pid} serves, version ${version}, generation ${crew.generation + 1}`;
    await announce(pid, message);
    const signedIn = options.signedIn();
    await channel.send({ type: "main", ...(signedIn ? { admin: signedIn } : {}) });
    options.onDeparted(channel);
    primary.depart((worker) => giveAway(worker, channel, primary));
    return message;
  } catch (error) {
    undo(pid, channel, options);
    log.warn({ successor: pid }, "the new generation was ended; this one serves on");
    throw error;
  }
}

/** Returns the successor's version once it accepts. */
async function handOver(channel: HandoverChannel, pid: number, options: UpgradeOptions): Promise<string> {
  const { primary, handed, onStep } = options;
  const { crew, stopSignal } = primary;
  const { message: hello } = await channel.receive("hello", "the new primary's greeting", HELLO_MS, stopSignal);
  if (hello.protocol !== HANDOVER_PROTOCOL) {
    throw new HeadraceError(
      "change-failed",
      `the new release speaks handover protocol ${hello.protocol}, this one ${HANDOVER_PROTOCOL}: restart instead`,
    );
  }
  if (hello.pid !== pid) throw new HeadraceError("change-failed", `process ${hello.pid} answered instead of ${pid}`);
  const { listeners } = crew.slots;
  const manifest: Manifest = {
    type: "manifest",
    generation: crew.generation,
    pid: process.pid,
    slots: crew.slots.count,
    least: crew.slots.least,
    workers: primary.config.workers,
    wanted: crew.wanted,
    listeners,
    rows: crew.rows.entries,
    control: handed.path,
    ...(handed.admin ? { admin: handed.admin.key } : {}),
  };
  await channel.send(manifest);
  const sockets = crew.slots.byKey(listeners.map(({ key }) => key));
  for (let from = 0; from < sockets.length; from += SOCKETS_PER_MESSAGE) {
    await channel.send({ type: "sockets" }, sockets.slice(from, from + SOCKETS_PER_MESSAGE));
  }
  const { admission, topics, tickets, closes } = crew;
  const state = [admission.fd, handed.control, handed.lock, topics, admission.wakeFd, tickets.fd, closes.fd];
  if (handed.admin) state.push(handed.admin.fd);
  await channel.send({ type: "state" }, state);
  onStep();
  await channel.receive("armed", "the new workers are ready", ARMED_MS, stopSignal);
  await channel.send({ type: "commit" });
  await channel.receive("accepting", "the new workers accept", ACCEPTING_MS, stopSignal);
  return hello.version;
}

/** Ends the new generation: its workers see that their primary has gone, and leave. */
function undo(pid: number, channel: HandoverChannel, options: UpgradeOptions): void {
  const { primary, log } = options;
  const { crew } = primary;
  const half = halfOf(crew.generation + 1);
  const taken = crew.admission.countHalf(half, 0);
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has gone by itself.
  }
  channel.close();
  if (taken > 0) log.warn({ connections: taken }, `${taken} connections that the new generation had accepted end`);
  options.aftermath.begin(crew.admission, half);
}

/** A worker's connections, to whichever worker the new primary chooses. */
async function giveAway(worker: WorkerProcess, channel: HandoverChannel, { crew, config }: Primary): Promise<void> {
  if (!config.migration.enabled) return;
  await moveAll(worker, async () => {
    const [own, theirs] = openChannel();
    try {
      await channel.send({ type: "connections", slot: worker.slot }, [theirs]);
      return crew.give(worker, own, { handOff: true }, () => {});
    } finally {
      // Copies here would hide it from each worker when the other one dies.
      closeDescriptor(own);
      closeDescriptor(theirs);
    }
  });
}
