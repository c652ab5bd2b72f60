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
  | "thread-died"
  | "change-refused"
  | "change-failed"
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
 * worker. `closing`: the pool ends with its worker.
 */
export type BusyCause = "queue-full" | "queue-delay" | "in-flight" | "loop-delay" | "memory" | "closing";

/** Refused for want of room, before anything of it was begun: the same request may succeed a moment later. */
export class ServerBusy extends HeadraceError {
  override readonly name = "ServerBusy";
  readonly because: BusyCause;

  constructor(because: BusyCause, message: string) {
    // Thousands a second may be made, and where it was refused says nothing.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super("server-busy", message);
    Error.stackTraceLimit = stackTraceLimit;
    this.because = because;
  }
}

/** Not done in the time that was given for it. */
export class DeadlineExceeded extends HeadraceError {
  override readonly name = "DeadlineExceeded";

  constructor(message: string) {
    super("deadline-exceeded", message);
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Exit codes of every command (DESIGN.md section 6). */
export const EXIT = { done: 0, failed: 1, usage: 2, busy: 75 } as const;

const USAGE_CODES: ReadonlySet<ErrorCode> = new Set(["config-invalid", "usage", "service-invalid"]);

/** 2 for a wrong configuration or usage, 75 for what may work when tried again (EX_TEMPFAIL of sysexits.h), else 1. */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof HeadraceError)) return EXIT.failed;
  if (error.code === "busy") return EXIT.busy;
  return USAGE_CODES.has(error.code) ? EXIT.usage : EXIT.failed;
}
