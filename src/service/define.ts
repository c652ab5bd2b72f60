/**
 * The programming model: a service is one table of handlers, shared by all connections of a listener, with
 * typed state per connection. What `onMessage` returns is the reply: a plain value goes to the socket without
 * a promise on its way, a promise is awaited in the service's order.
 */
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";
import type { Limits, Timeouts } from "../base/settings.ts";
import type { Codec } from "../codec/codec.ts";
import { LIMIT_KINDS, TIMEOUT_KINDS } from "../config/bounds.ts";
import { type NumericKind, Wrong } from "../config/kinds.ts";
import { nearest } from "../config/nearest.ts";
import type { Pool } from "../tasks/define.ts";
import type { Priority } from "../tasks/queue.ts";
import type { Connection, ConnectionInfo, Context, Duration } from "./connection.ts";
import { checkHeartbeat, DEFAULT_MISSED, type Heartbeat } from "./heartbeat.ts";

/** The reply, or nothing, now or later. */
// biome-ignore lint/suspicious/noConfusingVoidType: a handler without a return statement returns void
export type Reply<Out> = Out | undefined | void | Promise<Out | undefined | void>;

/** What `onError` may answer: a reply, or an end. */
// biome-ignore lint/suspicious/noConfusingVoidType: as above
export type ErrorReply<Out> = { readonly reply: Out } | "close" | "reset" | void;

/** Wraps the handler. Must pass on what `next` returns, a plain value as a plain value. */
export type Middleware<State, In, Out, Env> = (
  message: In,
  context: Context<State, Out, Env>,
  next: (message: In) => Reply<Out>,
) => Reply<Out>;

/** Bytes, or "64KiB", "1MiB", "1GiB". */
export type Size = number | `${number}${"KiB" | "MiB" | "GiB"}`;

/** Defaults of the service's own; the configuration overrides them. */
export interface ServiceLimits {
  readonly connections?: number;
  readonly frame?: Size;
  readonly inFlight?: number;
  readonly inFlightPerWorker?: number;
  readonly highWater?: Size;
  readonly lowWater?: Size;
  readonly buffered?: Size;
  readonly minRate?: Size | "off";
}

export type ServiceTimeouts = { readonly [Name in Exclude<keyof Timeouts, "ageJitter">]?: Duration } & {
  readonly ageJitter?: `${number}%` | "off";
};

/** The worker that a service runs in. */
export interface WorkerInfo<Out = unknown> {
  readonly index: number;
  readonly log: Logger;
  /** Aborted when the worker begins to stop; connections are still being drained then (see `closeEnv`). */
  readonly signal: AbortSignal;
  /** As `connection.publish`: for what comes from elsewhere, a timer or a client that `env` made. */
  publish(topic: string, message: Out): void;
}

/** What becomes of published messages that a subscriber is too slow for. */
export interface TopicOptions {
  /** Messages that wait for one subscriber whose output is backed up (`limits.highWater`). 1 to 65536, default 64. */
  readonly queued?: number;
  /** When as many wait: the oldest is dropped (default), or the connection closed (`slow-consumer`). */
  readonly whenFull?: "drop-oldest" | "close";
}

const DEFAULT_TOPICS: Required<TopicOptions> = { queued: 64, whenFull: "drop-oldest" };

/**
 * `serial` (default): a message waits until the handler before it has ended, also when that was too late. `ordered`:
 * handlers run side by side, replies leave in the order of the requests. `unordered`: replies leave as they are made;
 * the protocol must tell them apart. At most `limits.inFlight` run side by side on one connection; then reads pause.
 */
export type Concurrency = "serial" | "ordered" | "unordered";

export interface ServiceDefinition<State, In, Out, Env> {
  /** For logs. Default: the name of the codec. */
  readonly name?: string;
  readonly codec: Codec<In, Out>;
  /** What the handlers share in one worker (clients, tables); made before the worker accepts. */
  env?(worker: WorkerInfo<NoInfer<Out>>): Env | Promise<Env>;
  /** After the last connection of a stopping worker: ends what `env` made. Bounded by the drain deadline. */
  closeEnv?(env: Env): void | Promise<void>;
  /** State of a new connection. */
  state?(info: ConnectionInfo, env: Env): State;
  onOpen?(connection: Connection<State, Out>, env: Env): void;
  /** The handler. What it returns is the reply; what it throws goes to `onError`. */
  onMessage(message: In, context: Context<State, Out, Env>): Reply<NoInfer<Out>>;
  /** After `send()` said `slow`: the unsent bytes fell below the low-water mark. */
  onWritable?(connection: Connection<State, Out>, env: Env): void;
  onClose?(connection: Connection<State, Out>, reason: CloseReason, env: Env): void;
  /**
   * A handler failed. Without `onError` the error is logged and the connection closed (`handler-error`). A request that
   * is refused is a `ServerBusy` here, one that is late (`timeouts.request`, `deadline`) a `DeadlineExceeded`.
   */
  onError?(error: unknown, context: Context<State, Out, Env>, message: In): ErrorReply<NoInfer<Out>>;
  /**
   * The protocol's way to say "try again later": sent instead of the reply to a request that is refused because of
   * overload (also one whose task a pool refused). Without it such a request goes to `onError` as a `ServerBusy`;
   * without that either, the connection is closed (`overload`).
   */
  busy?(message: In): NoInfer<Out>;
  /** How important a request is: in overload the least important are refused first. Must be quick. Default: normal. */
  priority?(message: In): Priority;
  /**
   * Milliseconds in which the sender wants its reply, counted from the message's arrival; undefined: it does not say.
   * It can only shorten `timeouts.request`. One that has passed (0 or less) is not begun. Must be quick.
   */
  deadline?(message: In): number | undefined;
  /** The W3C trace context (`traceparent`) that a message carries, for `context.traceparent`. */
  traceparent?(message: In): string | undefined;
  /**
   * For protocols whose messages say which request they are about: tells the requests of one connection apart. A
   * request with the id of another that waits for its reply is a `protocol-error`.
   */
  requestId?(message: In): string | number;
  /**
   * The id of the request that this message cancels; undefined: it is a request itself. A request that is cancelled has
   * its signal aborted and its tasks taken back, and gets no reply.
   */
  cancels?(message: In): string | number | undefined;
  /** Thread pools that its handlers use; started with the worker. */
  readonly pools?: readonly Pool<never>[];
  /** The worker stops. What it returns is sent as a last message before the connection ends. */
  // biome-ignore lint/suspicious/noConfusingVoidType: as above
  onDraining?(connection: Connection<State, Out>, env: Env): Out | undefined | void;
  /**
   * How long a connection that has said goodbye (`onDraining`) waits for the peer to close it, and answers what the peer
   * had sent before it read that. Default `off`: it ends once nothing is in flight.
   */
  readonly farewell?: Duration;
  /**
   * The connection is about to move to another worker and nothing of it is in flight: returns what its `resume` needs
   * there, or undefined to keep it here. Without `suspend` the state is cloned (structured clone).
   */
  suspend?(connection: Connection<State, Out>, env: Env): Uint8Array | undefined;
  /**
   * A connection has come from another worker, instead of `onOpen`. Its `state` is new when the service has `suspend`,
   * else the clone that is also in `bytes`. Also called, with what `suspend` returned, when the move did not come
   * about: so after each `suspend` comes one `resume`, or `onClose`. `stateVersion` is that of the worker it left.
   * What it throws makes the connection stay where it was.
   */
  resume?(connection: Connection<State, Out>, bytes: Uint8Array, env: Env, stateVersion: number): void;
  /**
   * All connections of this worker are about to move: what they share in `env` (rooms, matches), once, before the
   * first of them. At most 64 MiB, within 10 s. It must leave `env` usable: the move may fail.
   */
  handOff?(env: Env): Uint8Array | Promise<Uint8Array>;
  /** What another worker's `handOff` gave, before its first connection comes. What it throws refuses them all. */
  takeOver?(env: Env, bytes: Uint8Array, stateVersion: number): void | Promise<void>;
  /**
   * Raise it when what `suspend`, `handOff` or the cloned state holds changes its form. Default 1. Connections of
   * another version move only when there is a `resume`, which gets that version as its last argument.
   */
  readonly stateVersion?: number;
  /** False: connections of this service never move, but are drained. Default true. */
  readonly migrate?: boolean;
  /** For protocols that have a ping and a pong. */
  readonly heartbeat?: Heartbeat<State, In, Out, Env>;
  readonly topics?: TopicOptions;
  readonly use?: readonly Middleware<State, In, Out, Env>[];
  readonly concurrency?: Concurrency;
  readonly limits?: ServiceLimits;
  readonly timeouts?: ServiceTimeouts;
}

const SERVICE: unique symbol = Symbol.for("headrace.service");
/** Raised when a worker can no longer run a service that an older copy of this package defined. */
const CONTRACT = 1;

/** A checked definition. */
export interface Service<State = unknown, In = unknown, Out = unknown, Env = unknown>
  extends Omit<ServiceDefinition<State, In, Out, Env>, "limits" | "timeouts" | "pools"> {
  readonly name: string;
  readonly concurrency: Concurrency;
  readonly stateVersion: number;
  readonly migrate: boolean;
  readonly limits: Partial<Limits>;
  readonly timeouts: Partial<Timeouts>;
  /** Pings without an answer after which a connection ends. */
  readonly missed: number;
  /** 0: a connection that has said goodbye waits for nobody. */
  readonly farewellMs: number;
  /** Makes the reply of what a handler's promise has given, which is the reply itself without it. */
  readonly replyOf?: (value: unknown, message: In) => Out;
  /** Sent last on a connection that was drained and ends in order: nothing has been begun that was not answered. */
  readonly lastGoodbye?: Out;
  readonly topics: Required<TopicOptions>;
  readonly pools: readonly Pool<never>[];
  readonly [SERVICE]: typeof CONTRACT;
}

/** A service of any types, as listeners hold it. */
// biome-ignore lint/suspicious/noExplicitAny: handlers are contravariant in their parameters, so no other type holds all services
export type AnyService = Service<any, any, any, any>;

const FUNCTIONS = [
  "env",
  "closeEnv",
  "state",
  "onOpen",
  "onMessage",
  "onWritable",
  "onClose",
  "onError",
  "onDraining",
  "suspend",
  "resume",
  "handOff",
  "takeOver",
  "busy",
  "priority",
  "deadline",
  "traceparent",
  "requestId",
  "cancels",
] as const;
const PROPERTIES: readonly string[] = [
  "name",
  "codec",
  ...FUNCTIONS,
  "stateVersion",
  "migrate",
  "heartbeat",
  "farewell",
  "topics",
  "use",
  "pools",
  "concurrency",
  "limits",
  "timeouts",
];
const ORDERS: readonly Concurrency[] = ["serial", "ordered", "unordered"];

function invalid(option: string, problem: string, allowed: string): HeadraceError {
  return new HeadraceError("service-invalid", `defineService: ${option}: ${problem}; allowed: ${allowed}`, {
    option,
    allowed,
  });
}

/** `wrong` makes the error of whoever asks. */
export function readGroup<T extends object>(
  group: string,
  given: object | undefined,
  kinds: { readonly [Name in keyof T]: NumericKind<T[Name]> },
  wrong: typeof invalid = invalid,
): Partial<T> {
  const settings: Partial<T> = {};
  if (given !== undefined && (typeof given !== "object" || given === null || Array.isArray(given))) {
    throw wrong(group, "not an object", `{ ${Object.keys(kinds).join(", ")} }`);
  }
  for (const [name, value] of Object.entries(given ?? {})) {
    if (!Object.hasOwn(kinds, name)) {
      throw wrong(`${group}.${name}`, "unknown", Object.keys(kinds).join(", "));
    }
    const kind = kinds[name as keyof T];
    const read = kind.read(value);
    if (read instanceof Wrong) throw wrong(`${group}.${name}`, read.problem, read.allowed ?? kind.allowed);
    settings[name as keyof T] = read;
  }
  return settings;
}

function checkShape(given: Readonly<Record<string, unknown>>): void {
  for (const name of Object.keys(given)) {
    if (PROPERTIES.includes(name)) continue;
    const near = nearest(name, PROPERTIES);
    throw invalid(name, `unknown${near ? `; did you mean ${near}?` : ""}`, PROPERTIES.join(", "));
  }
  const codec = given.codec as Partial<Codec<unknown, unknown>> | undefined;
  if (typeof codec?.decode !== "function" || typeof codec.encodeInto !== "function") {
    throw invalid("codec", "missing or not a codec", "line(), frame(), raw() or a Codec of your own");
  }
  if (given.onMessage === undefined) throw invalid("onMessage", "missing", "a function (message, context) => reply");
  for (const name of FUNCTIONS) {
    if (given[name] !== undefined && typeof given[name] !== "function")
      throw invalid(name, "not a function", "a function");
  }
  if (given.name !== undefined && (typeof given.name !== "string" || given.name === "")) {
    throw invalid("name", "not a text", "a text of one character or more");
  }
  if (given.concurrency !== undefined && !ORDERS.includes(given.concurrency as Concurrency)) {
    throw invalid("concurrency", `"${String(given.concurrency)}" is unknown`, ORDERS.join(", "));
  }
  if (given.cancels && !given.requestId) throw invalid("requestId", "missing, but there is a cancels", "both of them");
  checkMoving(given);
  const use = given.use ?? [];
  if (!Array.isArray(use) || use.some((middleware) => typeof middleware !== "function")) {
    throw invalid("use", "not a list of functions", "(message, context, next) => reply");
  }
  const pools = given.pools ?? [];
  if (!Array.isArray(pools) || pools.some((pool) => typeof pool?.run !== "function")) {
    throw invalid("pools", "not a list of pools", "what definePool({ … }) returns");
  }
}

function checkMoving({ suspend, resume, handOff, takeOver, stateVersion, migrate }: Record<string, unknown>): void {
  if (suspend && !resume) throw invalid("resume", "missing, but there is a suspend", "both, or no suspend");
  if (handOff && !takeOver) throw invalid("takeOver", "missing, but there is a handOff", "both, or no handOff");
  if (stateVersion !== undefined && !(Number.isSafeInteger(stateVersion) && (stateVersion as number) > 0)) {
    throw invalid("stateVersion", "not a version", "a whole number, 1 or more");
  }
  if (migrate !== undefined && typeof migrate !== "boolean") throw invalid("migrate", "not a boolean", "true or false");
}

function readTopics(given: unknown): Required<TopicOptions> {
  if (given !== undefined && (typeof given !== "object" || given === null)) {
    throw invalid("topics", "not an object", "{ queued, whenFull }");
  }
  const { queued, whenFull, ...unknown } = { ...DEFAULT_TOPICS, ...given };
  const [odd] = Object.keys(unknown);
  if (odd !== undefined) throw invalid(`topics.${odd}`, "unknown", "queued, whenFull");
  if (!(Number.isSafeInteger(queued) && queued >= 1 && queued <= 65_536)) {
    throw invalid("topics.queued", "not a number of messages", "1 to 65536");
  }
  if (whenFull !== "drop-oldest" && whenFull !== "close") {
    throw invalid("topics.whenFull", "unknown", "drop-oldest, close");
  }
  return { queued, whenFull };
}

function readFarewell(given: unknown): number {
  const kind = TIMEOUT_KINDS.idle;
  const read = kind.read(given ?? "off");
  if (read instanceof Wrong) throw invalid("farewell", read.problem, read.allowed ?? kind.allowed);
  return read === "off" ? 0 : read;
}

/** Checks a definition and completes it. Throws `service-invalid`, naming the property and what is allowed. */
export function defineService<In, Out, State = undefined, Env = undefined>(
  definition: ServiceDefinition<State, In, Out, Env>,
): Service<State, In, Out, Env> {
  if (typeof definition !== "object" || definition === null) {
    throw new HeadraceError("service-invalid", "defineService: expects an object with codec and onMessage");
  }
  checkShape(definition as unknown as Record<string, unknown>);
  const { heartbeat } = definition;
  checkHeartbeat(heartbeat, definition.timeouts?.heartbeat, invalid);
  const timeouts =
    heartbeat?.every === undefined ? definition.timeouts : { ...definition.timeouts, heartbeat: heartbeat.every };
  return {
    ...definition,
    name: definition.name ?? definition.codec.name,
    concurrency: definition.concurrency ?? "serial",
    stateVersion: definition.stateVersion ?? 1,
    migrate: definition.migrate ?? true,
    limits: readGroup<Limits>("limits", definition.limits, LIMIT_KINDS),
    timeouts: readGroup<Timeouts>("timeouts", timeouts, TIMEOUT_KINDS),
    topics: readTopics(definition.topics),
    missed: heartbeat?.missed ?? DEFAULT_MISSED,
    farewellMs: readFarewell(definition.farewell),
    pools: definition.pools ?? [],
    [SERVICE]: CONTRACT,
  };
}

/** True for what `defineService` returned, also by another copy of this package. */
export function isService(value: unknown): value is AnyService {
  return typeof value === "object" && value !== null && (value as AnyService)[SERVICE] === CONTRACT;
}
