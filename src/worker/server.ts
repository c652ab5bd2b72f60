/**
 * The serving part of a worker: one engine, an endpoint per listener, a wheel of deadlines for all of them.
 * Knows nothing of the primary; src/worker/main.ts tells it when to accept and when to stop.
 */
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";
import type { ListenerConfig } from "../config/config.ts";
import { resolveSettings } from "../config/resolve.ts";
import { ServedConnection } from "../connection/connection.ts";
import { Endpoint } from "../connection/endpoint.ts";
import { Wheel } from "../connection/wheel.ts";
import { type Acceptor, Engine } from "../engine/engine.ts";
import { errnoName } from "../os/errno.ts";
import type { Scoreboard } from "../os/scoreboard.ts";
import type { AnyService } from "../service/define.ts";

export interface ServedListener {
  readonly config: ListenerConfig;
  readonly service: AnyService;
}

export interface ServerOptions {
  readonly listeners: readonly ServedListener[];
  readonly scoreboard: Scoreboard;
  /** Index of this worker. */
  readonly worker: number;
  /** Connections in all workers together. */
  readonly connections: number;
  readonly log: Logger;
}

interface StopOutcome {
  /** Connections that ended by themselves or politely. */
  readonly closed: number;
  /** Connections that were reset at the deadline. */
  readonly forced: number;
}

export interface WorkerServer {
  /** Begins to accept. `sockets`: one per listener, bound and listening; they stay the caller's. */
  accept(sockets: readonly number[]): void;
  /**
   * Stops accepting, answers what is in flight, closes every connection, resets the rest at the deadline.
   * Resolves when none is open; the engine is shut then.
   */
  stop(options: { readonly drainMs: number }): Promise<StopOutcome>;
  /** Resets everything at once. */
  abort(): void;
}

/** Once accepting has stopped, what the kernel and the peers still have on its way gets this long to arrive, ms. */
const GRACE_MS = 100;

/** What `closeEnv` has at least, when the drain took all the time, ms. */
const LEAST_CLOSE_MS = 500;

/** Throws what a service's `env` throws, and `config-invalid` or `service-invalid` for settings that contradict. */
export async function openServer(options: ServerOptions): Promise<WorkerServer> {
  const { scoreboard, worker, log } = options;
  const stopping = new AbortController();
  // Before anything is opened: what fails here leaves nothing behind.
  const prepared = await Promise.all(
    options.listeners.map(async ({ config, service }) => {
      const settings = resolveSettings(config, service);
      const serviceLog = log.child({ listener: config.name });
      const env = await service.env?.({ index: worker, log: serviceLog, signal: stopping.signal });
      return { config, service, settings, env, log: serviceLog };
    }),
  );

  const block = scoreboard.block(worker);
  const engine = new Engine({ totals: block.head });
  const wheel = new Wheel(engine.now, (slot, now) => {
    const owner = engine.owner(slot);
    return owner instanceof ServedConnection ? owner.onDue(now) : Number.POSITIVE_INFINITY;
  });
  engine.onTick(() => wheel.advance(engine.now));

  const idPrefix = `${worker}-${Date.now().toString(36)}`;
  const endpoints = prepared.map(
    ({ config, settings, ...shared }, id) =>
      new Endpoint({
        ...shared,
        ...settings,
        listener: config.name,
        transport: engine,
        wheel,
        coalesce: config.socket.coalesce,
        row: block.row(id),
        idPrefix: `${idPrefix}-${id}`,
        poison: process.env.NODE_ENV === "development",
      }),
  );
  const caps = Int32Array.of(
    options.connections,
    ...prepared.map(({ config, service }) => config.limits.connections ?? service.limits.connections ?? 0),
  );
  engine.limit(scoreboard.admission, scoreboard.shape.workers, worker, caps);

  function accept(sockets: readonly number[]): void {
    for (const [id, endpoint] of endpoints.entries()) {
      const acceptor: Acceptor = {
        onAccept: (slot, generation) => new ServedConnection(endpoint, slot, generation),
        onAcceptError: (errno) =>
          endpoint.log.warn({ errno: errnoName(errno) }, "accepting failed; trying again in 100 ms"),
      };
      engine.listen(id, sockets[id] ?? -1, acceptor, options.listeners[id]?.config.socket.linger);
    }
  }

  function connections(): ServedConnection[] {
    return engine.owners().filter((owner) => owner instanceof ServedConnection);
  }

  let endDrain: (open: number) => void = () => {};

  /** Resolves with the connections that were still open at the deadline, or when `abort` came. */
  function drained(drainMs: number): Promise<number> {
    const started = engine.now;
    let draining = false;
    return new Promise((resolve) => {
      endDrain = resolve;
      engine.onTick(() => {
        const elapsed = engine.now - started;
        if (!draining && elapsed >= Math.min(GRACE_MS, drainMs)) {
          draining = true;
          for (const connection of connections()) connection.drain();
          engine.flush();
        }
        if (engine.open === 0) resolve(0);
        else if (elapsed >= drainMs) resolve(engine.open);
      });
    });
  }

  /** A service that does not end what it made in time, or fails to, does not keep the worker. */
  async function closeEnvs(withinMs: number): Promise<void> {
    const late = new Promise<void>((resolve) => setTimeout(resolve, withinMs));
    const closing = endpoints.map(async ({ service, env, log: serviceLog }) => {
      try {
        await service.closeEnv?.(env);
      } catch (err) {
        serviceLog.error({ err }, "closeEnv failed");
      }
    });
    await Promise.race([Promise.all(closing), late]);
  }

  function shut(reason: CloseReason): void {
    endDrain(engine.open);
    for (const connection of connections()) connection.reset(reason);
    engine.shutdown();
  }

  async function stop({ drainMs }: { readonly drainMs: number }): Promise<StopOutcome> {
    stopping.abort();
    for (const id of endpoints.keys()) engine.unlisten(id);
    const open = engine.open;
    const started = performance.now();
    const forced = await drained(drainMs);
    shut("drain");
    await closeEnvs(Math.max(LEAST_CLOSE_MS, drainMs - (performance.now() - started)));
    return { closed: open - forced, forced };
  }

  return { accept, stop, abort: () => shut("killed") };
}
