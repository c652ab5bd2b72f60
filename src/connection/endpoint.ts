/**
 * What all connections of one listener in one worker share: the service with its handler composed, its settings
 * in the form the data path wants, and where things are counted.
 */
import type { Logger } from "../base/log.ts";
import type { Deadline, Limits, Timeouts } from "../base/settings.ts";
import type { AnyService } from "../service/define.ts";
import { composeHandler, type Handler } from "../service/middleware.ts";
import type { Transport } from "./transport.ts";
import type { Wheel } from "./wheel.ts";

export interface EndpointOptions {
  readonly listener: string;
  readonly service: AnyService;
  readonly env: unknown;
  readonly transport: Transport;
  readonly wheel: Wheel;
  readonly limits: Limits;
  readonly timeouts: Timeouts;
  readonly coalesce: boolean;
  /** The listener's row in the scoreboard: LISTENER_FIELDS, then the close reasons. */
  readonly row: Float64Array;
  readonly log: Logger;
  /** Makes connection ids unique among workers and their restarts. */
  readonly idPrefix: string;
  /** Overwrites borrowed frames when the handler has returned, so that keeping one shows at once. */
  readonly poison: boolean;
}

const ms = (deadline: Deadline): number => (deadline === "off" ? Number.POSITIVE_INFINITY : deadline);

/** To send what is unsent when a connection is closed and writeStall is off. */
const FLUSH_MS = 30_000;

export class Endpoint {
  readonly listener: string;
  readonly service: AnyService;
  readonly env: unknown;
  readonly transport: Transport;
  readonly wheel: Wheel;
  readonly row: Float64Array;
  readonly log: Logger;
  readonly limits: Limits;
  readonly coalesce: boolean;
  readonly idPrefix: string;
  readonly poison: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: the service's own types, erased here as in AnyService
  readonly handle: Handler<any, any, any, any>;
  readonly firstByteMs: number;
  readonly frameMs: number;
  readonly idleMs: number;
  readonly writeStallMs: number;
  readonly flushMs: number;
  /** Handlers that may run side by side on one connection. */
  readonly maxInFlight: number;
  readonly ordered: boolean;
  /** Connections and requests so far, for ids. */
  opened = 0;
  requests = 0;

  constructor(options: EndpointOptions) {
    const { service, timeouts } = options;
    this.listener = options.listener;
    this.service = service;
    this.env = options.env;
    this.transport = options.transport;
    this.wheel = options.wheel;
    this.row = options.row;
    this.log = options.log;
    this.limits = options.limits;
    this.coalesce = options.coalesce;
    this.idPrefix = options.idPrefix;
    this.poison = options.poison && service.codec.borrowed;
    this.handle = composeHandler(service);
    this.firstByteMs = ms(timeouts.firstByte);
    this.frameMs = ms(timeouts.frame);
    this.idleMs = ms(timeouts.idle);
    this.writeStallMs = ms(timeouts.writeStall);
    this.flushMs = timeouts.writeStall === "off" ? FLUSH_MS : timeouts.writeStall;
    this.maxInFlight = service.concurrency === "serial" ? 1 : options.limits.inFlight;
    this.ordered = service.concurrency === "ordered";
  }
}
