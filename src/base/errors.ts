/**
 * The one error class. Four kinds, four fates (src/README.md): the peer's fault closes that connection
 * with a reason, a shortage pauses and retries, a configuration error exits 2, a bug crashes the worker.
 */

export type ErrorCode =
  | "config-invalid"
  | "usage"
  | "service-invalid"
  | "service-failed"
  | "address-in-use"
  | "address-unavailable"
  | "permission-denied"
  | "unsupported-platform"
  | "addon-missing"
  | "engine-thread"
  | "tls-unavailable"
  | "tls-invalid"
  | "frame-too-large"
  | "frame-invalid"
  | "codec-broken"
  | "connection-closed"
  | "control-unreachable"
  | "control-refused"
  | "worker-failed"
  | "busy"
  | "server-busy"
  | "deadline-exceeded"
  | "client-invalid"
  | "client-closed"
  | "connect-failed"
  | "reply-invalid"
  | "remote-error"
  | "request-cancelled"
  | "rpc-error"
  | "thread-died"
  | "change-refused"
  | "change-failed"
  | "no-answer"
  | "not-found"
  | "system";

export interface ErrorFields {
  /** File that holds the fault, as the user named it. */
  readonly file?: string;
  /** 1-based line in `file`. */
  readonly line?: number;
  /** Option, flag, variable or field at fault. */
  readonly option?: string;
  /** What was given. Never a secret. */
  readonly given?: string;
  /** What is allowed. */
  readonly allowed?: string;
  /** Network address at fault, as configured. */
  readonly address?: string;
  /** Symbolic errno ("EADDRINUSE"). */
  readonly errno?: string;
}

export class HeadraceError extends Error {
  override readonly name: string = "HeadraceError";
  readonly code: ErrorCode;
  readonly fields: ErrorFields;

  constructor(code: ErrorCode, message: string, fields: ErrorFields = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.fields = fields;
  }
}

/**
 * What was over its bound. `queue-full`, `queue-delay`: a thread pool's queue. `in-flight`, `loop-delay`, `memory`: the
 * worker. `closing`: the pool ends with its worker. `waiting-full`: too many calls wait in a client. `remote`: the server
 * that a client asked says so.
 */
export type BusyCause =
  | "queue-full"
  | "queue-delay"
  | "in-flight"
  | "loop-delay"
  | "memory"
  | "closing"
  | "waiting-full"
  | "remote";

/** What ends requests of which thousands a second may come, and where it happened says nothing: it has no stack. */
class Verdict extends HeadraceError {
  constructor(code: ErrorCode, message: string, fields?: ErrorFields, options?: ErrorOptions) {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(code, message, fields, options);
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Refused for want of room, before anything of it was begun: the same request may succeed a moment later. */
export class ServerBusy extends Verdict {
  override readonly name = "ServerBusy";
  readonly because: BusyCause;

  constructor(because: BusyCause, message: string) {
    super("server-busy", message);
    this.because = because;
  }
}

/** Not done in the time that was given for it. */
export class DeadlineExceeded extends Verdict {
  override readonly name = "DeadlineExceeded";

  constructor(message: string) {
    super("deadline-exceeded", message);
  }
}

/** No target of a client can be reached now: `address` is the one that was tried last, `errno` what became of it. */
export class ConnectFailed extends Verdict {
  override readonly name = "ConnectFailed";

  constructor(message: string, fields: ErrorFields, options?: ErrorOptions) {
    super("connect-failed", message, fields, options);
  }
}

/** The server that was asked has answered that it failed; the message is its own. */
export class RemoteError extends Verdict {
  override readonly name = "RemoteError";

  constructor(message: string, fields: ErrorFields) {
    super("remote-error", message, fields);
  }
}

/** The client has withdrawn the request: nobody waits for its reply. */
export class RequestCancelled extends Verdict {
  override readonly name = "RequestCancelled";

  constructor() {
    super("request-cancelled", "the client has cancelled the request");
  }
}

/** What an rpc service throws to tell its client what is wrong: the message is the payload of the error reply. */
export class RpcError extends HeadraceError {
  override readonly name = "RpcError";

  constructor(message: string) {
    super("rpc-error", message);
  }
}

/** The message of anything that was thrown, what has no text included. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  try {
    return String(error);
  } catch {
    return "an error that cannot be shown as text";
  }
}

/** Exit codes of every command. */
export const EXIT = { done: 0, failed: 1, usage: 2, busy: 75 } as const;

const USAGE_CODES: ReadonlySet<ErrorCode> = new Set(["config-invalid", "usage", "service-invalid"]);

/** 2 for a wrong configuration or usage, 75 for what may work when tried again (EX_TEMPFAIL of sysexits.h), else 1. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof HeadraceError)) return EXIT.failed;
  if (error.code === "busy") return EXIT.busy;
  return USAGE_CODES.has(error.code) ? EXIT.usage : EXIT.failed;
}
