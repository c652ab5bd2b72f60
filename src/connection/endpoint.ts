/**
 * What all connections of one listener in one worker share: the service with its handler composed, its settings
 * in the form the data path wants, and where things are counted.
 */
import { type BusyCause, ServerBusy } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Limits, Timeouts } from "../base/settings.ts";
import type { AnyService } from "../service/define.ts";
import { composeHandler, type Handler } from "../service/middleware.ts";
import type { TaskPool } from "../tasks/pool.ts";
import { type Priority, RANK } from "../tasks/queue.ts";
import type { BufferMemory } from "./buffer-memory.ts";
import { type Deadlines, flushMsOf, msOf } from "./deadlines.ts";
import { Flight } from "./flight.ts";
import { type Gate, IN_FLIGHT_SHARES } from "./gate.ts";
import type { Topics } from "./topics.ts";
import type { Transport } from "./transport.ts";
import type { Wheel } from "./wheel.ts";

export interface EndpointOptions {
  readonly listener: string;
  /** What makes it the same listener in another worker (src/config/listener-key.ts). */
  readonly key: string;
  /** Its row in the engine and in the admission table. */
  readonly index: number;
  readonly service: AnyService;
  readonly env: unknown;
  readonly transport: Transport;
  readonly wheel: Wheel;
  readonly memory: BufferMemory;
  readonly topics: Topics;
  readonly limits: Limits;
  readonly timeouts: Timeouts;
  /** `timeouts.drain`: what a connection that has reached its age has for what is in flight, ms. */
  readonly drainMs: number;
  readonly coalesce: boolean;
  /** The listener's row in the scoreboard: LISTENER_FIELDS, then the close reasons. */
  readonly row: Float64Array;
  readonly log: Logger;
  /** Of the worker. */
  readonly gate: Gate;
  /** Makes connection ids unique among workers and their restarts. */
  readonly idPrefix: string;
  /** Overwrites borrowed frames when the handler has returned, so that keeping one shows at once. */
  readonly poison: boolean;
}

/** What may change while connections are open. */
export type EndpointSettings = Pick<EndpointOptions, "limits" | "timeouts" | "drainMs" | "coalesce">;

export class Endpoint implements Deadlines {
  readonly listener: string;
  readonly key: string;
  readonly index: number;
  readonly service: AnyService;
  readonly env: unknown;
  readonly transport: Transport;
  readonly wheel: Wheel;
  readonly memory: BufferMemory;
  readonly topics: Topics;
  readonly row: Float64Array;
  readonly log: Logger;
  readonly gate: Gate;
  readonly pools: readonly TaskPool[];
  limits!: Limits;
  coalesce!: boolean;
  readonly idPrefix: string;
  readonly poison: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: the service's own types, erased here as in AnyService
  readonly handle: Handler<any, any, any, any>;
  firstByteMs!: number;
  frameMs!: number;
  idleMs!: number;
  writeStallMs!: number;
  ageMs!: number;
  /** The part of `ageMs` by which it may be shorter, 0 to 1. */
  ageJitter!: number;
  heartbeatMs!: number;
  flushMs!: number;
  drainMs!: number;
  /** Bytes per second; Infinity: they earn no time. */
  minRate!: number;
  requestMs!: number;
  /** Requests in flight in the worker from which on some may be refused. */
  inFlightMark!: number;
  /** Every request gets a Flight. */
  tracked!: boolean;
  /** Handlers that may run side by side on one connection. */
  maxInFlight!: number;
  readonly ordered: boolean;
  /** Connections and requests so far, for ids. */
  opened = 0;
  requests = 0;
  readonly #said = new Set<string>();

  constructor(options: EndpointOptions) {
    const { service } = options;
    this.listener = options.listener;
    this.key = options.key;
    this.index = options.index;
    this.service = service;
    this.env = options.env;
    this.transport = options.transport;
    this.wheel = options.wheel;
    this.memory = options.memory;
    this.topics = options.topics;
    this.row = options.row;
    this.log = options.log;
    this.gate = options.gate;
    this.pools = service.pools as unknown as readonly TaskPool[];
    this.idPrefix = options.idPrefix;
    this.poison = options.poison && service.codec.borrowed;
    this.handle = composeHandler(service);
    this.configure(options);
    this.ordered = service.concurrency === "ordered";
  }

  publish(topic: string, message: unknown): void {
    this.topics.publish(this.service, topic, message, this.limits.frame);
  }

  /** Logs what thousands of connections may have in common for the first of them only. */
  once(what: string, say: (log: Logger) => void): void {
    if (this.#said.has(what)) return;
    this.#said.add(what);
    say(this.log);
  }

  /** Takes over what may change while connections are open. */
  configure({ limits, timeouts, drainMs, coalesce }: EndpointSettings): void {
    this.limits = limits;
    this.coalesce = coalesce;
    this.firstByteMs = msOf(timeouts.firstByte);
    this.frameMs = msOf(timeouts.frame);
    this.idleMs = msOf(timeouts.idle);
    this.writeStallMs = msOf(timeouts.writeStall);
    this.ageMs = msOf(timeouts.age);
    this.ageJitter = timeouts.ageJitter === "off" ? 0 : timeouts.ageJitter / 100;
    this.heartbeatMs = msOf(timeouts.heartbeat);
    this.flushMs = flushMsOf(this.writeStallMs);
    this.drainMs = drainMs;
    this.minRate = limits.minRate === "off" ? Number.POSITIVE_INFINITY : limits.minRate;
    this.requestMs = msOf(timeouts.request);
    const { busy, priority } = this.service;
    this.inFlightMark = inFlightMarkOf(this.service, limits);
    this.tracked =
      timeouts.request !== "off" || (busy?.length ?? 0) > 0 || (priority !== undefined && this.pools.length > 0);
    this.maxInFlight = this.service.concurrency === "serial" ? 1 : limits.inFlight;
  }

  /** Why this request is refused, if it is. Asked only while something is over its bound. */
  refusal(message: unknown): ServerBusy | undefined {
    return refusalOf(this, message);
  }

  /** Of a request that has come now. */
  flight(message: unknown): Flight {
    const { service, transport, requestMs, pools } = this;
    const priority = pools.length > 0 ? (service.priority?.(message) ?? "normal") : "normal";
    const wanted = (service.busy?.length ?? 0) > 0 ? message : undefined;
    return new Flight(priority, transport.now + requestMs, wanted);
  }
}

/** What decides whether a request is begun. */
interface Refusing {
  readonly gate: Gate;
  readonly limits: Limits;
  readonly pools: readonly TaskPool[];
  // biome-ignore lint/suspicious/noExplicitAny: of whatever type the service's messages are
  readonly service: { priority?(message: any): Priority };
}

/** Requests in flight in the worker from which on some may be refused. */
export function inFlightMarkOf({ priority }: Refusing["service"], { inFlightPerWorker }: Limits): number {
  return Math.floor(inFlightPerWorker * (priority ? Math.min(...IN_FLIGHT_SHARES) : 1));
}

/** Why this request is refused, if it is. Asked only while something is over its bound. */
export function refusalOf({ gate, service, limits, pools }: Refusing, message: unknown): ServerBusy | undefined {
  const priority: Priority = service.priority?.(message) ?? "normal";
  const rank = RANK[priority];
  const most = limits.inFlightPerWorker * (service.priority ? (IN_FLIGHT_SHARES[rank] as number) : 1);
  if (gate.inFlight >= Math.max(1, Math.floor(most))) return busy("in-flight");
  const because = gate.refuses(rank);
  if (because) return busy(because);
  for (const pool of pools) {
    const refused = pool.refuses(priority);
    if (refused) return refused;
  }
  return undefined;
}

const SAID: Readonly<Partial<Record<BusyCause, string>>> = {
  "in-flight": "too many requests are in flight in this worker",
  "loop-delay": "the event loop of this worker is late",
  memory: "this worker uses too much memory",
};

function busy(because: BusyCause): ServerBusy {
  return new ServerBusy(because, SAID[because] ?? because);
}
