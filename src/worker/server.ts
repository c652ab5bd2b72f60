/**
 * The serving part of a worker: one engine, an endpoint per listener, a wheel of deadlines for all of them.
 * Knows nothing of the primary; worker.ts tells it from which slots to accept and when to stop.
 */
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";
import { within } from "../base/within.ts";
import type { Config, ListenerConfig } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import { resolveSettings } from "../config/resolve.ts";
import { BufferMemory } from "../connection/buffer-memory.ts";
import { ServedConnection } from "../connection/connection.ts";
import { Endpoint } from "../connection/endpoint.ts";
import { Gate } from "../connection/gate.ts";
import { Topics } from "../connection/topics.ts";
import { Wheel } from "../connection/wheel.ts";
import { type Acceptor, Engine } from "../engine/engine.ts";
import { errnoName } from "../os/errno.ts";
import { ROWS, type WorkerBlock } from "../os/scoreboard.ts";
import type { TopicRings } from "../os/topic-rings.ts";
import type { AnyService } from "../service/define.ts";
import { type AdmissionPlace, applyAdmission, type ServerAdmission } from "./admission.ts";
import { closePools, configurePools, poolsOf, startPools, watchPools } from "./pools.ts";
import { RejectionLog } from "./rejections.ts";
import { Shedding } from "./shedding.ts";

export interface ServedListener {
  readonly config: ListenerConfig;
  readonly service: AnyService;
  /** Its place in the scoreboard and in the admission table. */
  readonly row: number;
}

export interface ServerOptions {
  readonly listeners: readonly ServedListener[];
  /** This worker's figures. */
  readonly block: WorkerBlock;
  readonly admission: AdmissionPlace;
  /** Number of this worker, for services. */
  readonly worker: number;
  /** Makes connection ids unique among all workers that ever were. */
  readonly idPrefix: string;
  /** What holds for all listeners together. */
  readonly config: ServerAdmission;
  /** `timeouts.drain`, ms. */
  readonly drainMs: number;
  /** `limits.bufferMemory`, bytes. */
  readonly bufferMemory: number;
  /** To the topics of the other workers; without them they end here. */
  readonly rings?: TopicRings;
  readonly log: Logger;
  readonly tasks: TaskConfig;
}

/** What the whole configuration says of thread pools and of overload. */
type TaskConfig = Pick<Config, "tasks" | "shed" | "workers">;

interface StopOutcome {
  /** Connections that ended by themselves or politely. */
  readonly closed: number;
  /** Connections that were reset at the deadline. */
  readonly forced: number;
}

export interface WorkerServer {
  readonly engine: Engine;
  /** In the order of the listeners. */
  readonly endpoints: readonly Endpoint[];
  readonly block: WorkerBlock;
  /** Drains, or has: takes no connections from other workers. */
  readonly stopping: boolean;
  /** On their way to another worker, but here still: no longer in the engine, and not lost sight of. */
  readonly transit: { connections: number };
  /** Those that are open. */
  connections(): ServedConnection[];
  /** Slots it accepts from. */
  readonly accepting: ReadonlySet<number>;
  /** Begins to accept from a slot. `sockets`: one per listener, -1 where there is none; they stay the caller's. */
  accept(slot: number, sockets: readonly number[]): void;
  /** Accepts from a slot no more. `queued`: first what waits in its queues. */
  refuse(slot: number, options: { readonly queued: boolean }): void;
  /** A listener (by place) is removed: accepts what waits in its queues, then no more, and drains its connections. */
  unlist(listener: number): void;
  /** Takes over limits and timeouts. Throws, and changes nothing, when a service's own do not fit them. */
  configure(config: Config): void;
  /**
   * Accepts what is queued and then no more, at once; answers what is in flight, closes every connection, resets the
   * rest at the deadline. Resolves when none is open; the engine is shut then.
   */
  stop(options: { readonly drainMs: number }): Promise<StopOutcome>;
  /** Resets everything at once. */
  abort(): void;
}

/** Once accepting has stopped, what the kernel and the peers still have on its way gets this long to arrive, ms. */
const GRACE_MS = 100;

/** What `closeEnv` has at least, when the drain took all the time, ms. */
const LEAST_CLOSE_MS = 500;

/** How the engine numbers what it accepts from: each listener of each slot. */
const watchOf = (slot: number, row: number): number => slot * ROWS + row;

/** Throws what a service's `env` throws, and `config-invalid` or `service-invalid` for settings that contradict. */
export async function openServer(options: ServerOptions): Promise<WorkerServer> {
  const { block, admission, worker, idPrefix, log } = options;
  const stopping = new AbortController();
  const topics = new Topics({
    ...(options.rings ? { rings: options.rings } : {}),
    // Not before there are subscribers.
    flush: () => engine.flush(),
    hold: (bytes) => memory.add(bytes),
    head: block.head,
    log,
  });
  // Before anything is opened: what fails here leaves nothing behind.
  const pools = poolsOf(options.listeners);
  configurePools(pools, options.tasks);
  await startPools(pools);
  const prepared = await Promise.all(
    options.listeners.map(async ({ config, service, row }) => {
      const settings = resolveSettings(config, service, { bufferMemory: options.bufferMemory });
      const serviceLog = log.child({ listener: config.name });
      const publish = (topic: string, message: unknown): void => {
        topics.publish(service, topic, message, settings.limits.frame);
      };
      const env = await service.env?.({ index: worker, log: serviceLog, signal: stopping.signal, publish });
      return { config, service, row, settings, env, log: serviceLog };
    }),
  );

  const engine = new Engine({ totals: block.head });
  const wheel = new Wheel(engine.now, (slot, now) => {
    const owner = engine.owner(slot);
    return owner instanceof ServedConnection ? owner.onDue(now) : Number.POSITIVE_INFINITY;
  });
  engine.onTick(() => wheel.advance(engine.now));
  const memory = new BufferMemory({
    transport: engine,
    budget: options.bufferMemory,
    head: block.head,
    log,
    holders: connections,
  });
  engine.onTick(() => topics.read());
  engine.onRound(() => memory.review());
  engine.onTick(() => memory.review());

  const gate = new Gate();
  const shedding = new Shedding({ gate, log, memory: () => process.memoryUsage.rss() });
  shedding.configure(options.tasks.shed);
  engine.onTick(() => {
    shedding.tick(engine.now);
    if (pools.length > 0)
      block.set(
        "waiting",
        pools.reduce((sum, pool) => sum + pool.waiting, 0),
      );
  });
  watchPools(pools, gate, log);

  const endpoints = prepared.map(
    ({ config, settings, row, ...shared }, index) =>
      new Endpoint({
        ...shared,
        ...settings,
        listener: config.name,
        key: listenerKey(config),
        index: row,
        transport: engine,
        wheel,
        memory,
        topics,
        drainMs: options.drainMs,
        coalesce: config.socket.coalesce,
        row: block.row(row),
        gate,
        idPrefix: `${idPrefix}-${index}`,
        poison: process.env.NODE_ENV === "development",
      }),
  );
  applyAdmission(engine, admission, options.config, prepared);
  const rejections = new RejectionLog(block, log);
  engine.onTick(() => rejections.look(engine.now));

  /** What is accepted from now on, by listener; a connection that failed in the queue is nobody's fault. */
  const acceptors = endpoints.map(
    (endpoint): Acceptor => ({
      onAccept: (slot, generation) => new ServedConnection(endpoint, slot, generation),
      onAcceptError: (errno) => rejections.failed(engine.now, errnoName(errno), endpoint.log),
    }),
  );

  const accepting = new Set<number>();

  function accept(slot: number, sockets: readonly number[]): void {
    accepting.add(slot);
    try {
      for (const [index, { row, config }] of options.listeners.entries()) {
        const [fd = -1, acceptor] = [sockets[index], acceptors[index]];
        if (fd >= 0 && acceptor) engine.listen(watchOf(slot, row), row, fd, acceptor, config.socket.linger);
      }
    } catch (error) {
      refuse(slot, { queued: false });
      throw error;
    }
  }

  function refuse(slot: number, how: { readonly queued: boolean }): void {
    if (!accepting.delete(slot)) return;
    for (const { row } of options.listeners) engine.unlisten(watchOf(slot, row), how);
  }

  function connections(): ServedConnection[] {
    return engine.owners().filter((owner) => owner instanceof ServedConnection);
  }

  function unlist(listener: number): void {
    const [served, endpoint] = [options.listeners[listener], endpoints[listener]];
    if (!served) return;
    for (const slot of accepting) engine.unlisten(watchOf(slot, served.row), { queued: true });
    for (const connection of connections()) if (connection.endpoint === endpoint) connection.drain();
    engine.flush();
  }

  function configure(config: Config): void {
    const changed = options.listeners.map((served) => {
      const key = listenerKey(served.config);
      const now = config.listeners.find((listener) => listenerKey(listener) === key) ?? served.config;
      return { ...served, config: now, settings: resolveSettings(now, served.service, config) };
    });
    for (const [index, { settings, config: listener }] of changed.entries()) {
      const endpoint = endpoints[index];
      endpoint?.configure({ ...settings, drainMs: config.drainMs, coalesce: listener.socket.coalesce });
      // A child logger keeps the level it was made with.
      if (endpoint) endpoint.log.level = config.logLevel;
    }
    applyAdmission(engine, admission, config, changed);
    memory.limit(config.bufferMemory);
    configurePools(pools, config);
    shedding.configure(config.shed);
    for (const connection of connections()) connection.reconfigured();
  }

  const transit = { connections: 0 };
  let endDrain: (open: number) => void = () => {};

  /** Resolves with the connections that were still open at the deadline, or when `abort` came. */
  function drained(drainMs: number): Promise<number> {
    const started = engine.now;
    return new Promise((resolve) => {
      endDrain = resolve;
      engine.onTick(() => {
        const elapsed = engine.now - started;
        // Each time: a connection that could not move comes back.
        if (elapsed >= Math.min(GRACE_MS, drainMs)) {
          for (const connection of connections()) connection.drain();
          engine.flush();
        }
        const open = engine.open + transit.connections;
        if (open === 0) resolve(0);
        else if (elapsed >= drainMs) resolve(open);
      });
    });
  }

  /** A service that does not end what it made in time, or fails to, does not keep the worker. */
  async function closeEnvs(withinMs: number): Promise<void> {
    const closing = endpoints.map(async ({ service, env, log: serviceLog }) => {
      try {
        await service.closeEnv?.(env);
      } catch (err) {
        serviceLog.error({ err }, "closeEnv failed");
      }
    });
    await within(withinMs, Promise.all(closing), () => {});
  }

  function shut(reason: CloseReason): void {
    endDrain(engine.open + transit.connections);
    for (const connection of connections()) connection.reset(reason);
    engine.shutdown();
  }

  async function stop({ drainMs }: { readonly drainMs: number }): Promise<StopOutcome> {
    stopping.abort();
    for (const slot of accepting) refuse(slot, { queued: true });
    const open = engine.open + transit.connections;
    const started = performance.now();
    const forced = await drained(drainMs);
    shut("drain");
    await closeEnvs(Math.max(LEAST_CLOSE_MS, drainMs - (performance.now() - started)));
    // Last: until here somebody may still want something done.
    await closePools(pools);
    return { closed: open - forced, forced };
  }

  const abort = (): void => shut("killed");
  return {
    engine,
    endpoints,
    block,
    get stopping() {
      return stopping.signal.aborted;
    },
    transit,
    connections,
    accepting,
    accept,
    refuse,
    unlist,
    configure,
    stop,
    abort,
  };
}
