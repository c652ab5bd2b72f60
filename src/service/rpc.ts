/**
 * rpc services: `defineService` with the rpc codec and all that its frames ask for. A handler gets a payload and
 * returns one; ids, statuses, priorities, deadlines, cancels and the goodbye are seen to here and in
 * src/connection. Whatever happens to a request, its client gets one reply that says so, unless it has cancelled it.
 */
import { HeadraceError } from "../base/errors.ts";
import { isThenable } from "../base/thenable.ts";
import type { Borrowed, Codec } from "../codec/codec.ts";
import {
  GOODBYE,
  LAST_GOODBYE,
  type RpcCancel,
  type RpcGoodbye,
  type RpcPayload,
  type RpcReply,
  type RpcRequest,
  rpc,
} from "../codec/rpc.ts";
import type { RpcStatus } from "../codec/rpc-header.ts";
import { nearest } from "../config/nearest.ts";
import type { Priority } from "../tasks/queue.ts";
import type { Connection, Context } from "./connection.ts";
import { defineService, type Reply, type Service, type ServiceDefinition } from "./define.ts";
import { wrapHandler } from "./middleware.ts";
import { FailureLog } from "./rpc-failures.ts";

/** What the server sends. */
export type RpcSent = RpcReply<RpcPayload> | RpcGoodbye;

type Received<As> = As extends "borrowed" ? Borrowed : Buffer;

/** What it has in common with other services. */
const COMMON = [
  "name",
  "env",
  "closeEnv",
  "state",
  "onOpen",
  "onWritable",
  "onClose",
  "pools",
  "suspend",
  "resume",
  "handOff",
  "takeOver",
  "stateVersion",
  "migrate",
  "concurrency",
  "farewell",
  "limits",
  "timeouts",
] as const;
const OWN = ["as", "onRequest", "onError", "onDraining", "priority", "use"] as const;

/** Wraps the handler of an rpc service. Must pass on what `next` returns, a plain value as a plain value. */
export type RpcMiddleware<State, Env, As extends "bytes" | "borrowed" = "bytes"> = (
  payload: Received<As>,
  context: Context<State, RpcSent, Env>,
  next: (payload: Received<As>) => Reply<RpcPayload>,
) => Reply<RpcPayload>;

export interface RpcServiceDefinition<State, Env, As extends "bytes" | "borrowed" = "bytes">
  extends Pick<ServiceDefinition<State, RpcRequest<Received<As>>, RpcSent, Env>, (typeof COMMON)[number]> {
  /** Payloads. `bytes` (default): each is a Buffer of its own. `borrowed`: valid until the handler returns. */
  readonly as?: As;
  /**
   * The handler. What it returns is the payload of the reply (nothing: an empty one). A `ServerBusy` that it throws is a
   * reply of status busy, a `DeadlineExceeded` one of status deadline, an `RpcError` one of status error with its
   * message; of anything else the client learns only that it failed.
   */
  onRequest(payload: Received<As>, context: Context<State, RpcSent, Env>): Reply<RpcPayload>;
  /** Another error: returns the payload of the error reply. Without it, or for nothing: logged, and "internal error". */
  // biome-ignore lint/suspicious/noConfusingVoidType: a handler without a return statement returns void
  onError?(error: unknown, context: Context<State, RpcSent, Env>): RpcPayload | undefined | void;
  /** The worker stops; the goodbye is sent when this has returned. */
  onDraining?(connection: Connection<State, RpcSent>, env: Env): void;
  /** How important a request is. Default: as its client says. Must be quick. */
  priority?(request: RpcRequest<Received<As>>): Priority;
  readonly use?: readonly RpcMiddleware<State, Env, As>[];
}

/** Longer than a pool keeps an idle connection (90 s): so it is the client that ends one, and not in mid-request. */
const IDLE = "2m";
/** For what had been sent before the goodbye was read. */
const FAREWELL = "1s";

function reply(id: number, status: RpcStatus, payload: RpcPayload): RpcReply<RpcPayload> {
  return { kind: "reply", id, status, payload };
}

function invalid(option: string, problem: string, allowed: string): HeadraceError {
  return new HeadraceError("service-invalid", `defineRpcService: ${option}: ${problem}; allowed: ${allowed}`, {
    option,
    allowed,
  });
}

function checkShape(given: Readonly<Record<string, unknown>>): void {
  const known: readonly string[] = [...OWN, ...COMMON];
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw invalid(name, `unknown${near ? `; did you mean ${near}?` : ""}`, known.join(", "));
  }
  if (typeof given.onRequest !== "function")
    throw invalid("onRequest", "missing", "a function (payload, context) => payload");
  for (const name of ["onError", "onDraining", "priority"]) {
    if (given[name] !== undefined && typeof given[name] !== "function")
      throw invalid(name, "not a function", "a function");
  }
  const use = given.use ?? [];
  if (!Array.isArray(use) || use.some((middleware) => typeof middleware !== "function")) {
    throw invalid("use", "not a list of functions", "(payload, context, next) => payload");
  }
  if (given.as !== undefined && given.as !== "bytes" && given.as !== "borrowed") {
    throw invalid("as", `"${String(given.as)}" is unknown`, "bytes, borrowed");
  }
}

/** A service that speaks rpc (src/codec/rpc.ts). Throws `service-invalid`, naming the property and what is allowed. */
export function defineRpcService<State = undefined, Env = undefined, As extends "bytes" | "borrowed" = "bytes">(
  definition: RpcServiceDefinition<State, Env, As>,
): Service<State, RpcRequest<Received<As>> | RpcCancel, RpcSent, Env> {
  if (typeof definition !== "object" || definition === null) {
    throw new HeadraceError("service-invalid", "defineRpcService: expects an object with onRequest");
  }
  checkShape(definition as unknown as Record<string, unknown>);
  const {
    as,
    onRequest,
    onError,
    onDraining,
    priority,
    use = [],
    concurrency,
    farewell,
    timeouts,
    ...common
  } = definition;
  type In = RpcRequest<Received<As>> | RpcCancel;
  // A message that `cancels` takes reaches none of the other hooks.
  type Request = RpcRequest<Received<As>>;
  const handle = wrapHandler<Received<As>, RpcPayload, Context<State, RpcSent, Env>>(use, (payload, context) =>
    definition.onRequest(payload, context),
  );
  const failures = new FailureLog();
  const codec = (as === "borrowed" ? rpc({ as }) : rpc()) as unknown as Codec<In, RpcSent>;

  const service = defineService<In, RpcSent, State, Env>({
    ...common,
    codec,
    concurrency: concurrency ?? "unordered",
    farewell: farewell ?? FAREWELL,
    timeouts: { idle: IDLE, ...timeouts },
    onMessage(message, context) {
      const { id, payload } = message as Request;
      const result = handle(payload, context);
      // A promise is passed on as it is: `replyOf` spares each request another.
      return isThenable(result) ? (result as Promise<never>) : reply(id, "ok", result ?? "");
    },
    onError(error, context, { id }) {
      const { code } = (error ?? {}) as { readonly code?: unknown };
      if (code === "deadline-exceeded") return { reply: reply(id, "deadline", "") };
      if (code === "rpc-error") return { reply: reply(id, "error", (error as Error).message) };
      const payload = failures.payloadOf(error, context, onError);
      return { reply: reply(id, "error", payload) };
    },
    busy: ({ id }) => reply(id, "busy", ""),
    priority: (message) => (priority ? priority(message as Request) : (message as Request).priority),
    deadline: (message) => (message as Request).deadlineMs || undefined,
    traceparent: (message) => (message as Request).traceparent,
    requestId: ({ id }) => id,
    cancels: (message) => (message.kind === "cancel" ? message.id : undefined),
    onDraining(connection, env) {
      onDraining?.(connection, env);
      return GOODBYE;
    },
  });
  return {
    ...service,
    replyOf: (payload, { id }) => reply(id, "ok", (payload as RpcPayload | undefined) ?? ""),
    lastGoodbye: LAST_GOODBYE,
  };
}
