/**
 * What a client may be told, with defaults and bounds. `defineClient` reads it once; the rest of this folder gets
 * numbers in ms, bytes and pieces.
 */
import { HeadraceError } from "../base/errors.ts";
import { DEFAULT_SOCKET, type Deadline } from "../base/settings.ts";
import { type NumericKind, numeric, Wrong } from "../config/kinds.ts";
import { nearest } from "../config/nearest.ts";
import { COUNT, DURATION, PERCENT, SIZE } from "../config/units.ts";
import { packSocketOptions } from "../os/socket.ts";

/** "10s", "500ms", "2m", "1h". */
export type ClientDuration = `${number}${"ms" | "s" | "m" | "h"}`;

export interface ClientTimeouts {
  /** From call to reply, with everything in between, where the call itself says nothing. Default 30 s. */
  readonly call?: ClientDuration;
  /** For a connection: resolving the name, all its addresses, TLS. Default 3 s. */
  readonly connect?: ClientDuration;
  /** A connection that nobody has used for so long is closed. Default 90 s. */
  readonly idle?: ClientDuration;
  /** How old the addresses of a name may be before it is looked up again, beside the calls. Default 30 s. */
  readonly resolve?: ClientDuration;
  /** The longest pause before a target that could not be reached is tried again. Default 10 s. */
  readonly backoff?: ClientDuration;
}

export interface ClientLimits {
  /** Connections in all. Default 1,000. */
  readonly connections?: number;
  /** Connections to one target. Default 100; rpc: 4. */
  readonly connectionsPerTarget?: number;
  /** Idle ones in all. Default 1,000. */
  readonly idle?: number;
  /** Idle ones of one target. Default 100. */
  readonly idlePerTarget?: number;
  /** Calls that wait for a connection. Default 1,024. */
  readonly waiting?: number;
  /** rpc: calls under way on one connection. Default 64, which is what servers handle side by side by default. */
  readonly inFlight?: number;
  /** Bytes of a request and of a reply. Default 1 MiB. */
  readonly frame?: number | `${number}${"KiB" | "MiB" | "GiB"}`;
}

/** All in ms, bytes, pieces. */
export interface ClientSettings {
  readonly callMs: number;
  readonly connectMs: number;
  readonly idleMs: number;
  readonly resolveMs: number;
  readonly backoffMs: number;
  readonly connections: number;
  readonly connectionsPerTarget: number;
  readonly idle: number;
  readonly idlePerTarget: number;
  readonly waiting: number;
  readonly inFlight: number;
  readonly frame: number;
  /** Retries as a part of all calls; 0: none. */
  readonly retryShare: number;
  readonly close: "fin" | "reset";
  readonly localAddress: string;
  /** As the engine wants them. */
  readonly socket: Int32Array;
}

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const GiB = 1024 ** 3;
const MOST_CONNECTIONS = 100_000;
/** TCP keepalive of an idle connection: after the first probe, so many more, so far apart. */
const PROBES = 3;
const PROBE_MS = 5 * SECOND;
/** MAX_TCP_KEEPIDLE. */
const MOST_KEEPALIVE_MS = 32_767 * SECOND;

const period: NumericKind<number> = numeric(DURATION, 1, HOUR);
const TIMEOUTS: { readonly [Name in keyof Required<ClientTimeouts>]: NumericKind<number> } = {
  call: period,
  connect: period,
  idle: period,
  resolve: period,
  backoff: numeric(DURATION, 100, HOUR),
};
const LIMITS: { readonly [Name in keyof Required<ClientLimits>]: NumericKind<number> } = {
  connections: numeric(COUNT, 1, MOST_CONNECTIONS),
  connectionsPerTarget: numeric(COUNT, 1, MOST_CONNECTIONS),
  idle: numeric(COUNT, 1, MOST_CONNECTIONS),
  idlePerTarget: numeric(COUNT, 1, MOST_CONNECTIONS),
  waiting: numeric(COUNT, 1, 1_000_000),
  inFlight: numeric(COUNT, 1, 65_536),
  frame: numeric(SIZE, 1, GiB),
};
const KEEPALIVE: NumericKind<Deadline> = numeric(DURATION, SECOND, MOST_KEEPALIVE_MS, "off");
const RETRIES: NumericKind<number | "off"> = numeric(PERCENT, 1, 100, "off");

export function clientInvalid(option: string, problem: string, allowed: string): HeadraceError {
  return new HeadraceError("client-invalid", `defineClient: ${option}: ${problem}; allowed: ${allowed}`, {
    option,
    allowed,
  });
}

/** Refuses what is not among `known`. */
export function checkNames(group: string, given: unknown, known: readonly string[]): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw clientInvalid(group, "not an object", `{ ${known.join(", ")} }`);
  }
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    const where = group === "" ? name : `${group}.${name}`;
    throw clientInvalid(where, `unknown${near ? `; did you mean ${near}?` : ""}`, known.join(", "));
  }
}

function read<T>(option: string, given: unknown, kind: NumericKind<T>, otherwise: T): T {
  if (given === undefined) return otherwise;
  const value = kind.read(given);
  if (value instanceof Wrong) throw clientInvalid(option, value.problem, value.allowed ?? kind.allowed);
  return value;
}

function readGroup<Names extends string>(
  group: string,
  given: object | undefined,
  kinds: { readonly [Name in Names]: NumericKind<number> },
  defaults: { readonly [Name in Names]: number },
): { readonly [Name in Names]: number } {
  const names = Object.keys(kinds) as Names[];
  if (given !== undefined) checkNames(group, given, names);
  const values = (given ?? {}) as Readonly<Record<string, unknown>>;
  const entries = names.map((name) => [name, read(`${group}.${name}`, values[name], kinds[name], defaults[name])]);
  return Object.fromEntries(entries);
}

export interface GivenSettings {
  readonly timeouts?: ClientTimeouts;
  readonly limits?: ClientLimits;
  readonly retries?: `${number}%` | "off";
  readonly close?: "fin" | "reset";
  readonly localAddress?: string;
  readonly keepAlive?: ClientDuration | "off";
}

/** Throws `client-invalid`. `rpc`: connections are shared by many calls. */
export function readSettings(given: GivenSettings, rpc: boolean): ClientSettings {
  const timeouts = readGroup("timeouts", given.timeouts, TIMEOUTS, {
    call: 30 * SECOND,
    connect: 3 * SECOND,
    idle: 90 * SECOND,
    resolve: 30 * SECOND,
    backoff: 10 * SECOND,
  });
  const limits = readGroup("limits", given.limits, LIMITS, {
    connections: 1_000,
    connectionsPerTarget: rpc ? 4 : 100,
    idle: 1_000,
    idlePerTarget: 100,
    waiting: 1_024,
    inFlight: 64,
    frame: 1024 ** 2,
  });
  const keepAlive = read("keepAlive", given.keepAlive, KEEPALIVE, 15 * SECOND);
  const retries = read("retries", given.retries, RETRIES, "off");
  const { close = "fin" } = given;
  if (close !== "fin" && close !== "reset") throw clientInvalid("close", "unknown", "fin, reset");
  return {
    callMs: timeouts.call,
    connectMs: timeouts.connect,
    idleMs: timeouts.idle,
    resolveMs: timeouts.resolve,
    backoffMs: timeouts.backoff,
    ...limits,
    inFlight: rpc ? limits.inFlight : 1,
    retryShare: retries === "off" ? 0 : retries / 100,
    close,
    localAddress: given.localAddress ?? "",
    socket: socketOptions(keepAlive),
  };
}

/** What is sent and not acknowledged is given up after the same time as an idle peer that answers no probe. */
function socketOptions(keepAlive: Deadline): Int32Array {
  const userTimeout = keepAlive === "off" ? "off" : keepAlive + PROBES * PROBE_MS;
  return packSocketOptions({
    ...DEFAULT_SOCKET,
    keepAlive,
    keepAliveInterval: PROBE_MS,
    keepAliveCount: PROBES,
    userTimeout,
  });
}
