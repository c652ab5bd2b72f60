/** Answers `status`: what the primary knows of itself and its workers, with the scoreboard's figures. */
import type { DrainingStatus, ListenerStatus, ServerStatus, WorkerStatus } from "../control/status.ts";
import { serviceLabel } from "./label.ts";
import type { Primary } from "./primary.ts";
import { usageOf } from "./usage.ts";

export interface ServerIdentity {
  readonly version: string;
  readonly control: string;
  /** Address of the admin server, while there is one. */
  readonly admin: () => string | undefined;
  /** The generation before, while it drains. */
  readonly predecessor: () => DrainingStatus | undefined;
}

function listenersOf({ config, crew, addresses }: Primary): ListenerStatus[] {
  const rows = crew.rows.assign(config.listeners);
  return config.listeners.map((listener, index) => {
    const row = rows[index] ?? 0;
    const udp = listener.address.protocol === "udp";
    const datagrams = udp ? { ...crew.figures.datagrams(row), overflow: crew.slots.overflow(listener) } : undefined;
    return {
      name: listener.name,
      address: addresses[index] ?? "",
      service: serviceLabel(listener.service),
      ...crew.figures.listener(row),
      ...(datagrams ? { datagrams } : {}),
    };
  });
}

function drainingOf({ crew }: Primary, predecessor: DrainingStatus | undefined): DrainingStatus[] {
  const workers = crew.draining.map((worker) => ({
    pid: worker.pid,
    generation: crew.generation,
    open: crew.openOf(worker),
    since: new Date(worker.leavingSince ?? Date.now()).toISOString(),
  }));
  return predecessor ? [predecessor, ...workers] : workers;
}

export async function serverStatus(
  primary: Primary,
  { version, control, admin, predecessor }: ServerIdentity,
): Promise<ServerStatus> {
  const { crew, lastChange } = primary;
  const adminAddress = admin();
  const usage = await usageOf([process.pid, ...crew.owners.map(({ pid }) => pid)]);
  const workers = crew.owners.map(
    ({ slot, seat, pid, state }): WorkerStatus => ({
      index: slot,
      slot,
      pid,
      state,
      restarts: crew.restartsOf(slot),
      ...crew.figures.worker(seat),
      ...crew.figures.moves(seat),
      waiting: crew.figures.waiting(seat),
      ...usage.get(pid),
    }),
  );
  return {
    pid: process.pid,
    version,
    state: primary.state,
    health: primary.health,
    generation: crew.generation,
    configVersion: primary.configVersion,
    ...(lastChange ? { lastChange } : {}),
    startedAt: new Date(primary.startedAt).toISOString(),
    uptimeMs: Date.now() - primary.startedAt,
    control,
    ...(adminAddress === undefined ? {} : { admin: adminAddress }),
    source: primary.config.source,
    ...usage.get(process.pid),
    listeners: listenersOf(primary),
    tls: primary.certificates.status(primary.config),
    slots: crew.slots.count,
    workers,
    draining: drainingOf(primary, predecessor()),
    totals: {
      ...crew.figures.totals(),
      restarts: workers.reduce((total, { restarts }) => total + restarts, 0),
    },
    unaccounted: crew.figures.unaccounted(),
    closes: crew.figures.closes(),
    rejections: crew.figures.rejections(),
  };
}
