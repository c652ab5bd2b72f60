/**
 * The programming model for datagrams: one handler per listener, called for each datagram with its bytes and its
 * source. What it returns is the reply and leaves in the same round; a promise's value leaves later.
 *
 * Nothing is made for a datagram: `message` and `from` are reused when the handler has returned. Unless it has returned
 * a promise: then both are its own for good, so that an async handler can never see another datagram's bytes, nor
 * answer to another's address.
 */
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Limits, Timeouts } from "../base/settings.ts";
import { LIMIT_KINDS, TIMEOUT_KINDS } from "../config/bounds.ts";
import { nearest } from "../config/nearest.ts";
import type { Pool } from "../tasks/define.ts";
import type { Priority } from "../tasks/queue.ts";
import type { Duration, SendResult } from "./connection.ts";
import { type AnyService, isService, readGroup, type Size } from "./define.ts";

/** Where a datagram came from, and where one can be sent. */
export interface DatagramSource {
  /** An IP address; made when first read. An IPv4 client of an IPv6 listener has its IPv4 address. */
  readonly host: string;
  readonly port: number;
  /** It has shown that it hears us (`verify`), and not been silent for five minutes since then. */
  readonly verified: boolean;
  /**
   * Any number of bytes may go to it, until it has been silent for five minutes: its address is no forgery, as it has
   * repeated a secret, say. For one that never sends anything this has to be said again in time.
   */
  verify(): void;
  /** Sends to it. As `UdpSocket.send`. */
  send(message: string | Uint8Array): SendResult;
  /**
   * The same source, to be kept: `from` itself is another's when the handler has returned. It throws while no handler
   * runs, but in that of another datagram nothing can tell that it was kept.
   */
  keep(): DatagramSource;
}

/** A listener's socket, as its service sees it in one worker. */
export interface UdpSocket {
  /**
   * `ok`: taken. `slow`: taken, but the kernel is short of room, so wait a moment. `refused`: not taken, because it is
   * longer than `limits.datagram`, more than a source that is not verified may get (`limits.amplification`), or too
   * many wait for room. `closed`: not taken, the worker does not serve (yet, or any more). Throws for what is neither
   * text nor bytes, and for a `from` while no handler runs.
   */
  send(message: string | Uint8Array, to: DatagramSource): SendResult;
  /** A source by its address, to send to. It is not verified, and has no credit before something came from it. */
  source(host: string, port: number): DatagramSource;
}

/** The worker that a service runs in. */
export interface UdpWorkerInfo {
  readonly index: number;
  readonly log: Logger;
  /** Aborted when the worker begins to stop. */
  readonly signal: AbortSignal;
  readonly socket: UdpSocket;
}

type Sendable = string | Uint8Array;

/** The reply, or none, now or later. */
// biome-ignore lint/suspicious/noConfusingVoidType: a handler without a return statement returns void
export type DatagramReply = Sendable | undefined | void | Promise<Sendable | undefined | void>;

export interface UdpServiceDefinition<Env> {
  /** For logs. Default: "udp". */
  readonly name?: string;
  /** `borrowed` (default): `message` is valid until the handler returns. `bytes`: a copy of its own each time. */
  readonly as?: "borrowed" | "bytes";
  /** What the handler shares in one worker; made before the worker serves. */
  env?(worker: UdpWorkerInfo): Env | Promise<Env>;
  /** When a worker stops: ends what `env` made. Bounded by the drain deadline. */
  closeEnv?(env: Env): void | Promise<void>;
  onDatagram(message: Buffer, from: DatagramSource, env: Env): DatagramReply;
  /**
   * The handler failed, or took longer than `timeouts.request` (a `DeadlineExceeded`). What it returns is the reply.
   * Without it the error is logged, at most once a second.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: as above
  onError?(error: unknown, from: DatagramSource, env: Env): Sendable | undefined | void;
  /** The protocol's way to say "try again later", while the worker is overloaded. Without it no answer is given. */
  busy?(message: Buffer): Sendable;
  /**
   * How important a datagram is: in overload the least important are refused first. Must be quick. Where it throws the
   * handler is not called, and has failed.
   */
  priority?(message: Buffer): Priority;
  /** Thread pools that its handler uses; started with the worker. */
  readonly pools?: readonly Pool<never>[];
  readonly limits?: {
    readonly datagram?: Size;
    readonly datagramRate?: number | "off";
    readonly datagramBurst?: number;
    readonly amplification?: number | "off";
    readonly inFlightPerWorker?: number;
  };
  readonly timeouts?: { readonly request?: Duration };
}

const UDP_SERVICE: unique symbol = Symbol.for("headrace.udp-service");
/** Raised when a worker can no longer run a service that an older copy of this package defined. */
const CONTRACT = 1;

/** A checked definition. */
export interface UdpService<Env = unknown> extends Omit<UdpServiceDefinition<Env>, "limits" | "timeouts" | "pools"> {
  readonly name: string;
  readonly as: "borrowed" | "bytes";
  readonly limits: Partial<Limits>;
  readonly timeouts: Partial<Timeouts>;
  readonly pools: readonly Pool<never>[];
  readonly [UDP_SERVICE]: typeof CONTRACT;
}

/** A service of any types, as listeners hold it. */
// biome-ignore lint/suspicious/noExplicitAny: handlers are contravariant in their parameters, so no other type holds all services
export type AnyUdpService = UdpService<any>;

/** What a listener may run. */
export type ListenerService = AnyService | AnyUdpService;

const FUNCTIONS = ["env", "closeEnv", "onDatagram", "onError", "busy", "priority"] as const;
const PROPERTIES: readonly string[] = ["name", "as", ...FUNCTIONS, "pools", "limits", "timeouts"];

const { datagram, datagramRate, datagramBurst, amplification, inFlightPerWorker } = LIMIT_KINDS;
const UDP_LIMIT_KINDS = { datagram, datagramRate, datagramBurst, amplification, inFlightPerWorker };
const UDP_TIMEOUT_KINDS = { request: TIMEOUT_KINDS.request };

function invalid(option: string, problem: string, allowed: string): HeadraceError {
  return new HeadraceError("service-invalid", `defineUdpService: ${option}: ${problem}; allowed: ${allowed}`, {
    option,
    allowed,
  });
}

function checkShape(given: Readonly<Record<string, unknown>>): void {
  for (const name of Object.keys(given)) {
    if (PROPERTIES.includes(name)) continue;
    const near = nearest(name, PROPERTIES);
    throw invalid(name, `unknown${near ? `; did you mean ${near}?` : ""}`, PROPERTIES.join(", "));
  }
  if (given.onDatagram === undefined)
    throw invalid("onDatagram", "missing", "a function (message, from, env) => reply");
  for (const name of FUNCTIONS) {
    if (given[name] !== undefined && typeof given[name] !== "function")
      throw invalid(name, "not a function", "a function");
  }
  if (given.name !== undefined && (typeof given.name !== "string" || given.name === "")) {
    throw invalid("name", "not a text", "a text of one character or more");
  }
  if (given.as !== undefined && given.as !== "borrowed" && given.as !== "bytes") {
    throw invalid("as", "unknown", "borrowed, bytes");
  }
  const pools = given.pools ?? [];
  if (!Array.isArray(pools) || pools.some((pool) => typeof pool?.run !== "function")) {
    throw invalid("pools", "not a list of pools", "what definePool({ … }) returns");
  }
}

/** Checks a definition and completes it. Throws `service-invalid`, naming the property and what is allowed. */
export function defineUdpService<Env = undefined>(definition: UdpServiceDefinition<Env>): UdpService<Env> {
  if (typeof definition !== "object" || definition === null) {
    throw new HeadraceError("service-invalid", "defineUdpService: expects an object with onDatagram");
  }
  checkShape(definition as unknown as Record<string, unknown>);
  return {
    ...definition,
    name: definition.name ?? "udp",
    as: definition.as ?? "borrowed",
    limits: readGroup("limits", definition.limits, UDP_LIMIT_KINDS, invalid),
    timeouts: readGroup("timeouts", definition.timeouts, UDP_TIMEOUT_KINDS, invalid),
    pools: definition.pools ?? [],
    [UDP_SERVICE]: CONTRACT,
  };
}

/** True for what `defineUdpService` returned, also by another copy of this package. */
export function isUdpService(value: unknown): value is AnyUdpService {
  return typeof value === "object" && value !== null && (value as AnyUdpService)[UDP_SERVICE] === CONTRACT;
}

/** True for whatever a listener can run. */
export function isListenerService(value: unknown): value is ListenerService {
  return isService(value) || isUdpService(value);
}
