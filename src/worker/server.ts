/**
 * The serving part of a worker: one engine, an endpoint per listener, a wheel of deadlines for all of them.
 * Knows nothing of the primary; worker.ts tells it from which slots to accept and when to stop.
 */
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";
import { DEFAULT_SERVER_LIMITS } from "../base/settings.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import { within } from "../base/within.ts";
import type { Config, ListenerConfig } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import { resolveSettings, type Settings } from "../config/resolve.ts";
import { Alarm } from "../connection/alarm.ts";
import { BufferMemory } from "../connection/buffer-memory.ts";
import { ServedConnection } from "../connection/connection.ts";
import { EarlySocket } from "../connection/datagram-socket.ts";
import { msOf } from "../connection/deadlines.ts";
import { type CloseNotes, Endpoint } from "../connection/endpoint.ts";
import { Gate } from "../connection/gate.ts";
import { Handshakes } from "../connection/handshakes.ts";
import { Preface, type PrefaceStage } from "../connection/preface.ts";
import { ProxyStage } from "../connection/proxy-stage.ts";
import { Timing } from "../connection/timing.ts";
import { TlsStage } from "../connection/tls-stage.ts";
import { Topics } from "../connection/topics.ts";
import { Wheel } from "../connection/wheel.ts";
import { type Acceptor, Engine } from "../engine/engine.ts";
import { shareEngine } from "../engine/shared.ts";
import type { CloseRing } from "../os/close-rings.ts";
import { errnoName } from "../os/errno.ts";
import { OpenDescriptors } from "../os/open-descriptors.ts";
import { LISTENER_FIELDS, ROWS, type WorkerBlock } from "../os/scoreboard.ts";
import type { TopicRings } from "../os/topic-rings.ts";
import { isUdpService, type ListenerService } from "../service/udp.ts";
import { type AdmissionPlace, applyAdmission, type ServerAdmission } from "./admission.ts";
import { DatagramListener } from "./datagrams.ts";
import { Drain } from "./drain.ts";
import { closePools, configurePools, poolsOf, startPools, watchPools } from "./pools.ts";
import { RejectionLog } from "./rejections.ts";
import { Shedding } from "./shedding.ts";
import { TlsContexts } from "./tls.ts";
import { Vitals } from "./vitals.ts";

export interface ServedListener {
  readonly config: ListenerConfig;
  readonly service: ListenerService;
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
  /** Where closes are noted; without, nowhere. */
  readonly closes?: CloseRing;
  readonly log: Logger;
  readonly tasks: TaskConfig;
  /** Without it no listener may have TLS. */
  readonly tls?: TlsOptions;
}

interface CurrentListener {
  readonly config: ListenerConfig;
  readonly settings: Settings;
}

interface TlsOptions {
  readonly secrets: TlsSecrets;
  /** Descriptor of the ticket keys. */
  readonly tickets: number;
  /** `limits.handshakes`. */
  readonly handshakes: number;
}

interface StopOptions {
  readonly drainMs: number;
  /** TLS connections stay, and are told goodbye over this time. Default: like all others. */
  readonly tlsMs?: number;
}

const ACCEPTED = LISTENER_FIELDS.indexOf("accepted");

/** What the whole configuration says of thread pools and of overload. */
type TaskConfig = Pick<Config, "tasks" | "shed" | "workers">;

type PrefaceEnd = (endpoint: Endpoint, connection: ServedConnection | undefined) => void;

/** A datagram whose handler is in flight counts as a connection. */
interface StopOutcome {
  /** Connections that ended by themselves or politely. */
  readonly closed: number;
  /** Connections that were reset at the deadline. */
  readonly forced: number;
}

export interface WorkerServer {
  readonly engine: Engine;
  /** In the order of the listeners for connections. */
  readonly endpoints: readonly Endpoint[];
  readonly block: WorkerBlock;
  /** Drains, or has: takes no connections from other workers. */
  readonly stopping: boolean;
  /** On their way to another worker, but here still: no longer in the engine, and not lost sight of. */
  readonly transit: { connections: number };
  /** Those that are open. */
  connections(): ServedConnection[];
  /**
   * Calls `ended` for each connection that was accepted, but not served so far: with it, once it is, or with nothing.
   * Returns what ends that.
   */
  onPrefaceEnd(ended: PrefaceEnd): () => void;
  /** Slots it accepts from. */
  readonly accepting: ReadonlySet<number>;
  /** Begins to accept from a slot. `sockets`: one per listener, -1 where there is none; they stay the caller's. */
  accept(slot: number, sockets: readonly number[]): void;
  /**
   * Accepts from a slot no more. `queued`: first what waits in its queues. `substitutes`: another slot's sockets, for
   * late answers to datagrams of a slot that is removed.
   */
  refuse(slot: number, options: { readonly queued: boolean; readonly substitutes?: readonly number[] }): void;
  /** A listener (by place) is removed: accepts what waits in its queues, then no more, and drains its connections. */
  unlist(listener: number): void;
  /** Takes over limits and timeouts. Throws, and changes nothing, when a service's own do not fit them. */
  configure(config: Config, secrets?: TlsSecrets): void;
  /** Newcomers get these certificates. Throws, and changes nothing, when they cannot be used. */
  secure(secrets: TlsSecrets): void;
  /**
   * Accepts what is queued and then no more, at once; answers what is in flight, closes every connection, resets the
   * rest at the deadline. Resolves when none is open; the engine is shut then.
   */
  stop(options: StopOptions): Promise<StopOutcome>;
  /** A stop that goes on, with whatever time for TLS connections, is to end in this time from now on. */
  hasten(drainMs: number): void;
  /** Resets everything at once. */
  abort(): void;
}

/** What `closeEnv` has at least, when the drain took all the time, ms. */
const LEAST_CLOSE_MS = 500;

/** What stands before a listener's service, in this order. */
function stagesOf(
  endpoint: Endpoint,
  { proxyProtocol }: ListenerConfig,
  tls: TlsStage | undefined,
): readonly PrefaceStage[] {
  return [...(proxyProtocol ? [new ProxyStage(endpoint, proxyProtocol)] : []), ...(tls ? [tls] : [])];
}

/** With addresses as the engine knows them. */
function closeNotes(ring: CloseRing, slot: number, engine: Engine): CloseNotes {
  let [at, generation] = [0, 0];
  // One function for all: a connection that ends should leave no garbage.
  const writeAddress = (into: Uint8Array): void => engine.writePeer(at, generation, into);
  return {
    label: (listener, idPrefix) => ring.label(slot, listener, idPrefix),
    note(closing, of, ofGeneration) {
      at = of;
      generation = ofGeneration;
      ring.note(closing, writeAddress);
    },
  };
}

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
  // Before `env`, which may use clients.
  const engine = new Engine({ totals: block.head });
  shareEngine(engine);
  const prepared = await Promise.all(
    options.listeners.map(async ({ config, service, row }) => {
      const settings = resolveSettings(config, service, { bufferMemory: options.bufferMemory });
      const serviceLog = log.child({ listener: config.name });
      const info = { index: worker, log: serviceLog, signal: stopping.signal };
      const shared = { config, row, settings, log: serviceLog };
      if (isUdpService(service)) {
        const socket = new EarlySocket(row);
        return { ...shared, service, socket, env: await service.env?.({ ...info, socket }) };
      }
      const publish = (topic: string, message: unknown): void => {
        topics.publish(service, topic, message, settings.limits.frame);
      };
      return { ...shared, service, env: await service.env?.({ ...info, publish }) };
    }),
  ).catch((error: unknown) => {
    engine.shutdown();
    throw error;
  });

  const wheel = new Wheel(engine.now, (slot, now) => {
    const owner = engine.owner(slot);
    const timed = owner instanceof ServedConnection || owner instanceof Preface;
    return timed ? owner.onDue(now) : Number.POSITIVE_INFINITY;
  });
  engine.onTick(() => wheel.advance(engine.now));
  const alarm = new Alarm(
    () => engine.clock(),
    (slot, now) => {
      const owner = engine.owner(slot);
      return owner instanceof ServedConnection ? owner.onAlarm(now) : Number.POSITIVE_INFINITY;
    },
  );
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

  const timing = new Timing(engine.laps);
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
  const descriptors = new OpenDescriptors();
  const vitals = new Vitals({ block, timing, descriptors, connections: () => engine.open });
  engine.onTick(() => vitals.look(engine.now));
  engine.onShutdown(() => vitals.end());

  const closes = options.closes && closeNotes(options.closes, worker, engine);
  const poison = process.env.NODE_ENV === "development";
  /** By listener: what it is to connections, or to datagrams. */
  const places = prepared.map(({ config, settings, row: index, ...own }, place) => {
    const shared = { ...settings, listener: config.name, index, row: block.row(index), timing, gate, poison };
    if ("socket" in own) {
      const watchOfSlot = (slot: number): number => watchOf(slot, index);
      return new DatagramListener({ ...own, ...shared, engine, slot: worker, watchOf: watchOfSlot });
    }
    return new Endpoint({
      ...own,
      ...shared,
      key: listenerKey(config),
      transport: engine,
      wheel,
      alarm,
      memory,
      topics,
      drainMs: options.drainMs,
      coalesce: config.socket.coalesce,
      idPrefix: `${idPrefix}-${place}`,
      ...(closes ? { closes } : {}),
    });
  });
  const endpoints = places.filter((place) => place instanceof Endpoint);
  const datagrams = places.filter((place) => place instanceof DatagramListener);
  const inFlight = (): number => datagrams.reduce((sum, { endpoint }) => sum + endpoint.inFlight, 0);
  const handshakes = new Handshakes(options.tls?.handshakes ?? DEFAULT_SERVER_LIMITS.handshakes, block, log);
  engine.onTick(() => handshakes.look(engine.now));
  const contexts = new TlsContexts(options.tls?.tickets ?? -1);

  /** The TLS of each listener, by place; undefined where it is plaintext. Throws when a certificate cannot be used. */
  function tlsStages(listeners: readonly CurrentListener[], given: TlsSecrets): (TlsStage | undefined)[] {
    return listeners.map(({ config, settings }) => {
      const context = contexts.make(config, given);
      return context && new TlsStage({ engine, context, handshakes, timeoutMs: msOf(settings.timeouts.handshake) });
    });
  }

  /** Newcomers meet these from now on. */
  function setStages(listeners: readonly CurrentListener[], tls: readonly (TlsStage | undefined)[]): void {
    for (const [index, place] of places.entries()) {
      const listener = listeners[index];
      if (listener && place instanceof Endpoint) place.stages = stagesOf(place, listener.config, tls[index]);
    }
  }

  /** As they are now: a reload may have changed them. */
  let current: readonly CurrentListener[] = prepared;
  let secrets: TlsSecrets = options.tls?.secrets ?? {};
  setStages(current, tlsStages(current, secrets));
  const prefaceEnds = new Set<PrefaceEnd>();
  /** Listeners that were removed. */
  const unlisted = new Set<Endpoint>();
  for (const endpoint of endpoints) {
    endpoint.onPrefaceEnd = (connection) => {
      if (unlisted.has(endpoint)) connection?.drain();
      for (const ended of prefaceEnds) ended(endpoint, connection);
    };
  }
  applyAdmission(engine, admission, options.config, prepared);
  const rejections = new RejectionLog(block, log);
  engine.onTick(() => rejections.look(engine.now));

  /** What is accepted from now on, by listener; a connection that failed in the queue is nobody's fault. */
  const acceptorOf = (endpoint: Endpoint): Acceptor => ({
    onAccept: (slot, generation) => {
      endpoint.row[ACCEPTED] = (endpoint.row[ACCEPTED] as number) + 1;
      return endpoint.stages.length > 0
        ? new Preface(endpoint, slot, generation)
        : new ServedConnection(endpoint, slot, generation);
    },
    onAcceptError: (errno) => rejections.failed(engine.now, errnoName(errno), endpoint.log),
  });
  const acceptors = places.map((place) => (place instanceof Endpoint ? acceptorOf(place) : place));

  const accepting = new Set<number>();

  function accept(slot: number, sockets: readonly number[]): void {
    accepting.add(slot);
    try {
      for (const [index, { row, config }] of options.listeners.entries()) {
        const [fd = -1, acceptor] = [sockets[index], acceptors[index]];
        if (fd < 0 || !acceptor) continue;
        if (acceptor instanceof DatagramListener) acceptor.receive(slot, fd);
        else engine.listen(watchOf(slot, row), row, fd, acceptor, config.socket.linger);
      }
    } catch (error) {
      refuse(slot, { queued: false });
      throw error;
    }
  }

  function refuse(slot: number, how: { readonly queued: boolean; readonly substitutes?: readonly number[] }): void {
    if (!accepting.delete(slot)) return;
    for (const [index, { row }] of options.listeners.entries()) {
      const place = places[index];
      if (place instanceof DatagramListener) place.refuse(slot, how, how.substitutes?.[index]);
      else engine.unlisten(watchOf(slot, row), how);
    }
  }

  function connections(): ServedConnection[] {
    return engine.owners().filter((owner) => owner instanceof ServedConnection);
  }

  function onPrefaceEnd(ended: PrefaceEnd): () => void {
    prefaceEnds.add(ended);
    return () => prefaceEnds.delete(ended);
  }

  function unlist(listener: number): void {
    const [served, endpoint] = [options.listeners[listener], places[listener]];
    if (!served) return;
    if (endpoint instanceof DatagramListener) {
      endpoint.remove();
      return;
    }
    if (endpoint) unlisted.add(endpoint);
    for (const slot of accepting) engine.unlisten(watchOf(slot, served.row), { queued: true });
    for (const connection of connections()) if (connection.endpoint === endpoint) connection.drain();
    engine.flush();
  }

  function secure(given: TlsSecrets): void {
    setStages(current, tlsStages(current, given));
    secrets = given;
  }

  function configure(config: Config, given: TlsSecrets = secrets): void {
    const changed = options.listeners.map((served) => {
      const key = listenerKey(served.config);
      const now = config.listeners.find((listener) => listenerKey(listener) === key) ?? served.config;
      return { ...served, config: now, settings: resolveSettings(now, served.service, config) };
    });
    const stages = tlsStages(changed, given);
    for (const [index, { settings, config: listener }] of changed.entries()) {
      const place = places[index];
      place?.configure({ ...settings, drainMs: config.drainMs, coalesce: listener.socket.coalesce });
      const log = place instanceof DatagramListener ? place.endpoint.log : place?.log;
      // A child logger keeps the level it was made with.
      if (log) log.level = config.logLevel;
    }
    current = changed;
    secrets = given;
    setStages(current, stages);
    handshakes.limit = config.handshakes;
    applyAdmission(engine, admission, config, changed);
    memory.limit(config.bufferMemory);
    configurePools(pools, config);
    shedding.configure(config.shed);
    for (const connection of connections()) connection.reconfigured();
  }

  const transit = { connections: 0 };
  /** Without the connections of clients, which the last requests may need. */
  const served = (): number => engine.open - engine.outbound + transit.connections + inFlight();
  let drain: Drain | undefined;

  /** A service that does not end what it made in time, or fails to, does not keep the worker. */
  async function closeEnvs(withinMs: number): Promise<void> {
    const closing = prepared.map(async ({ service, env, log: serviceLog }) => {
      try {
        await service.closeEnv?.(env);
      } catch (err) {
        serviceLog.error({ err }, "closeEnv failed");
      }
    });
    await within(withinMs, Promise.all(closing), () => {});
  }

  function resetAll(reason: CloseReason): void {
    if (drain) drain.forced += served();
    drain?.end();
    for (const owner of engine.owners()) {
      if (owner instanceof ServedConnection) owner.reset(reason);
      else if (owner instanceof Preface) owner.end(reason);
    }
    alarm.end();
  }

  async function stop({ drainMs, tlsMs = 0 }: StopOptions): Promise<StopOutcome> {
    stopping.abort();
    for (const slot of accepting) refuse(slot, { queued: true });
    const open = served();
    const started = performance.now();
    drain = new Drain({ engine, connections, served, drainMs, tlsMs });
    await drain.done;
    resetAll("drain");
    engine.flush();
    const { forced } = drain;
    // What `env` made may still have to ask other servers.
    await closeEnvs(Math.max(LEAST_CLOSE_MS, drainMs - (performance.now() - started)));
    // Last: until here somebody may still want something done.
    await closePools(pools);
    engine.shutdown();
    return { closed: open - forced, forced };
  }

  const abort = (): void => {
    resetAll("killed");
    engine.shutdown();
  };
  return {
    engine,
    endpoints,
    block,
    get stopping() {
      return stopping.signal.aborted;
    },
    transit,
    connections,
    onPrefaceEnd,
    accepting,
    accept,
    refuse,
    unlist,
    configure,
    secure,
    stop,
    hasten: (drainMs) => drain?.hasten(drainMs),
    abort,
  };
}
