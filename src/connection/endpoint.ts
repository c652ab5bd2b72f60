/**
 * What all connections of one listener in one worker share: the service with its handler composed, its settings
 * in the form the data path wants, and where things are counted.
 */
import { type BusyCause, ServerBusy } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type CloseReason, reasonIndex } from "../base/reasons.ts";
import type { Limits, Timeouts } from "../base/settings.ts";
import { COUNTER } from "../engine/layout.ts";
import type { Closing } from "../os/close-rings.ts";
import { LISTENER_FIELDS } from "../os/scoreboard.ts";
import type { AnyService } from "../service/define.ts";
import { composeHandler, type Handler } from "../service/middleware.ts";
import type { TaskPool } from "../tasks/pool.ts";
import { type Priority, RANK } from "../tasks/queue.ts";
import type { BufferMemory } from "./buffer-memory.ts";
import type { ServedConnection } from "./connection.ts";
import { type Deadlines, flushMsOf, msOf } from "./deadlines.ts";
import { FaultLog } from "./fault-log.ts";
import { Flight } from "./flight.ts";
import { type Gate, IN_FLIGHT_SHARES } from "./gate.ts";
import type { PrefaceStage } from "./preface.ts";
import type { Timing } from "./timing.ts";
import type { Topics } from "./topics.ts";
import type { RequestTracer } from "./tracer.ts";
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
  /** Where it listens, as configured. */
  readonly host?: string;
  readonly transport: Transport;
  readonly wheel: Wheel;
  /** For requests that are about to be late. */
  readonly alarm: Pick<Wheel, "schedule">;
  readonly memory: BufferMemory;
  readonly topics: Topics;
  readonly timing: Timing;
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
  /** Where its closes are noted. */
  readonly closes?: CloseNotes;
}

/** Notes connections that have ended. */
export interface CloseNotes {
  /** What the connections of a listener have in common. */
  label(listener: string, idPrefix: string): number;
  /** Of a slot that is still its own. */
  note(closing: Closing, slot: number, generation: number): void;
}

const PREFACES = LISTENER_FIELDS.indexOf("prefaces");
const NEVER = Number.POSITIVE_INFINITY;

/** What may change while connections are open. */
export type EndpointSettings = Pick<EndpointOptions, "limits" | "timeouts" | "drainMs" | "coalesce">;

export class Endpoint implements Deadlines {
  readonly listener: string;
  readonly key: string;
  readonly index: number;
  readonly service: AnyService;
  readonly env: unknown;
  readonly host: string;
  /** Known once it accepts; 0 before that. */
  port = 0;
  readonly transport: Transport;
  readonly wheel: Wheel;
  readonly alarm: Pick<Wheel, "schedule">;
  readonly memory: BufferMemory;
  readonly topics: Topics;
  readonly timing: Timing;
  readonly row: Float64Array;
  readonly log: Logger;
  readonly faults: FaultLog;
  readonly gate: Gate;
  readonly pools: readonly TaskPool[];
  limits!: Limits;
  coalesce!: boolean;
  readonly idPrefix: string;
  readonly poison: boolean;
  readonly #closes: CloseNotes | undefined;
  /** Of `#closes`. */
  readonly #closeLabel: number;
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
  proxyHeaderMs!: number;
  /** Requests in flight in the worker from which on some may be refused. */
  inFlightMark!: number;
  /** Requests may have deadlines. */
  timed!: boolean;
  /** Requests have ids, by which they are told apart and may be cancelled. */
  readonly multiplexed: boolean;
  /** Every request gets a Flight before its handler runs, since what its priority is read from is gone afterwards. */
  readonly ranked: boolean;
  /** Messages of requests that wait are copied, since somebody asks for them when they are gone. */
  readonly keepsMessage: boolean;
  /** Handlers that may run side by side on one connection. */
  maxInFlight!: number;
  readonly ordered: boolean;
  readonly serial: boolean;
  /** What comes before the service's bytes, in this order. Connections accepted from now on go through it. */
  stages: readonly PrefaceStage[] = [];
  /** Requests may be traced. */
  tracer: RequestTracer | undefined;
  /** Told of each that has come through them, or has not. */
  onPrefaceEnd: ((connection: ServedConnection | undefined) => void) | undefined;
  /** A request has waited for its reply: all are timed one by one from then on. */
  waits = false;
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
    this.host = options.host ?? "";
    this.transport = options.transport;
    this.wheel = options.wheel;
    this.alarm = options.alarm;
    this.memory = options.memory;
    this.topics = options.topics;
    this.timing = options.timing;
    this.row = options.row;
    this.log = options.log;
    this.faults = new FaultLog(options.log);
    this.gate = options.gate;
    this.pools = service.pools as unknown as readonly TaskPool[];
    this.idPrefix = options.idPrefix;
    this.poison = options.poison && service.codec.borrowed;
    this.#closes = options.closes;
    this.#closeLabel = options.closes?.label(options.listener, options.idPrefix) ?? 0;
    this.handle = composeHandler(service);
    this.ordered = service.concurrency === "ordered";
    this.serial = service.concurrency === "serial";
    const { codec, busy, onError, priority, requestId } = service;
    this.multiplexed = requestId !== undefined;
    this.ranked = codec.borrowed && priority !== undefined && this.pools.length > 0;
    this.keepsMessage = codec.borrowed && ((busy?.length ?? 0) > 0 || (onError?.length ?? 0) > 2);
    this.configure(options);
  }

  publish(topic: string, message: unknown): void {
    this.topics.publish(this.service, topic, message, this.limits.frame);
  }

  /** Connections that were accepted, and are not served yet. */
  get prefaces(): number {
    return this.row[PREFACES] as number;
  }

  /** For the list of the last closes: of a connection whose slot is still its own. `openedAt`: clock, ms. */
  noteClose(serial: number | string, reason: CloseReason, openedAt: number, slot: number, generation: number): void {
    if (!this.#closes) return;
    const { counters, now } = this.transport;
    const at = slot * COUNTER.words;
    const closing = {
      label: this.#closeLabel,
      serial,
      reason: reasonIndex(reason),
      durationMs: Math.max(0, Math.round(now - openedAt)),
      received: counters[at + COUNTER.received] as number,
      sent: counters[at + COUNTER.sent] as number,
    };
    this.#closes.note(closing, slot, generation);
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
    this.proxyHeaderMs = msOf(timeouts.proxyHeader);
    this.inFlightMark = inFlightMarkOf(this.service, limits);
    this.timed = timeouts.request !== "off" || this.service.deadline !== undefined;
    this.maxInFlight = this.service.concurrency === "serial" ? 1 : limits.inFlight;
  }

  /** Why this request is refused, if it is. Asked only while something is over its bound. */
  refusal(message: unknown): ServerBusy | undefined {
    return refusalOf(this, message);
  }

  /** Clock (ms) by which a request that begins now must be answered; `receivedAt`: that of its bytes. Infinity: never. */
  deadlineOf(message: unknown, receivedAt: number): number {
    const ownMs = this.service.deadline?.(message);
    const latest = this.requestMs === NEVER ? NEVER : this.transport.now + this.requestMs;
    if (ownMs === undefined) return latest;
    return receivedAt + ownMs < latest ? receivedAt + ownMs : latest;
  }

  flight(message: unknown): Flight {
    return new Flight(this.pools.length > 0 ? (this.service.priority?.(message) ?? "normal") : "normal");
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
