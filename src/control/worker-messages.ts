/**
 * What primary and worker say to each other over Node's IPC.
 *
 *   primary  start ──────── bind | take ─────── accept ─────────── retire ──────── moveOut ─────── stop | abort
 *   worker          loaded ───────────── bound ──────── accepting ──────── retired ───────── moved ──────────── stopped
 *
 * A slot's first worker binds its sockets and deposits copies; any other takes those that exist. Descriptors travel
 * on the worker's own channel, each set before the order that speaks of it: `take` is preceded by sockets, `moveOut`
 * and `moveIn` by one end of a channel, and the `bound` that answers a `bind` by the new sockets. `take` (new slots),
 * `drop`, `moveIn` and `configure` may come at any time while it accepts, `secure` at any time at all, and `ask`,
 * which one `answer` follows, at any time after `loaded`. `failed` may come at any time and is followed by the
 * worker's end.
 * The configuration's type is a parameter, because this folder stands below the one that would give it a meaning.
 */
import type { ErrorCode, ErrorFields } from "../base/errors.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import type { Question } from "./questions.ts";

/** Tag of messages on the descriptor channel that hold sockets, slot by slot in listener order. */
export const SLOTS_TAG = "slots";
/** Tag of the message that holds one end of a channel between two workers. */
export const MOVE_TAG = "move";
/** Sockets in one message (SCM_MAX_FD is 253, unix(7)). */
export const SOCKETS_PER_MESSAGE = 250;

/** Where fork() puts a worker's own descriptors: 0 to 2 are the standard ones, 3 is Node's IPC. */
export const WORKER_FDS = {
  channel: 4,
  scoreboard: 5,
  admission: 6,
  topics: 7,
  wake: 8,
  tickets: 9,
  closes: 10,
} as const;

export interface StartOrder<Config> {
  readonly type: "start";
  readonly slot: number;
  /** Its block in the scoreboard. */
  readonly seat: number;
  /** Its column in the admission table. */
  readonly column: number;
  /** Of the primary: part of connection ids. */
  readonly generation: number;
  readonly config: Config;
  readonly tls: TlsSecrets;
  /** Row of each listener of the configuration. */
  readonly rows: readonly number[];
  /** Log lines for people instead of JSON. */
  readonly pretty: boolean;
}

export type ToWorker<Config> =
  | StartOrder<Config>
  /** Bind one socket per listener, on `ports` (0: any), and deposit copies. */
  | { readonly type: "bind"; readonly exclusive: boolean; readonly ports: readonly number[] }
  /** The channel holds the sockets of these slots, each for these listeners (places in the configuration it got). */
  | { readonly type: "take"; readonly slots: readonly number[]; readonly listeners: readonly number[] }
  /** Accept from the own slot, and from siblings' when their owners do not. */
  | { readonly type: "accept" }
  /** A slot is removed: accept what is queued there, if it accepts from it, and close its sockets. */
  | { readonly type: "drop"; readonly slot: number }
  /** Listeners, by key, are removed: accept what is queued, close their sockets, drain their connections. */
  | { readonly type: "unlist"; readonly keys: readonly string[] }
  /** Accept nothing any more, and close the sockets. `queued`: first what waits in those it accepts from. */
  | { readonly type: "retire"; readonly queued: boolean }
  /** Give connections to the worker at the other end of the channel: all that can move, or at most `most`. */
  | {
      readonly type: "moveOut";
      readonly id: number;
      readonly most?: number;
      readonly handOff: boolean;
      /** Those whose requests take longer stay. */
      readonly withinMs: number;
    }
  | { readonly type: "moveIn"; readonly id: number }
  /** Take over what can change in place. */
  | { readonly type: "configure"; readonly config: Config; readonly tls: TlsSecrets }
  /** Certificate files have changed: newcomers get these. */
  | { readonly type: "secure"; readonly tls: TlsSecrets }
  /**
   * Drain and end. `queued`: accept first what waits in the own slot's queues. `tlsMs`: over this time TLS connections
   * are told goodbye, and what they have in flight then has `drainMs`. Told once more: in that time from now on.
   */
  | { readonly type: "stop"; readonly drainMs: number; readonly tlsMs: number; readonly queued: boolean }
  | { readonly type: "abort" }
  | { readonly type: "ask"; readonly id: number; readonly question: Question };

/** Why a worker cannot go on. */
export interface WorkerFailure {
  readonly type: "failed";
  readonly code: ErrorCode;
  readonly message: string;
  readonly fields: ErrorFields;
  /** Index of the listener that could not be bound. */
  readonly listener?: number;
  /** Stack of what was thrown underneath, for the log. */
  readonly stack?: string;
}

/** `problem`: why there is no `value`. */
export interface AnswerReport {
  readonly type: "answer";
  readonly id: number;
  readonly value?: unknown;
  readonly problem?: string;
}

export interface Moved {
  readonly type: "moved";
  readonly id: number;
  readonly moved: number;
  /** Connections that could not move and stayed. */
  readonly kept: number;
  /** The other end went before its time: another attempt with another worker may do better. */
  readonly cut: boolean;
}

export type FromWorker =
  /** `handsOff`: one of its services has state of the whole worker, so its connections move all or none. */
  | { readonly type: "loaded"; readonly handsOff: boolean }
  | { readonly type: "bound" }
  | { readonly type: "accepting" }
  | { readonly type: "retired" }
  | { readonly type: "dropped"; readonly slot: number }
  | Moved
  /** `problem`: why the configuration does not fit a service; then nothing was changed. */
  | { readonly type: "configured"; readonly problem?: string }
  | AnswerReport
  | { readonly type: "stopped"; readonly closed: number; readonly forced: number }
  | WorkerFailure;

const FROM_WORKER: ReadonlySet<string> = new Set<FromWorker["type"]>([
  "loaded",
  "bound",
  "accepting",
  "retired",
  "dropped",
  "moved",
  "configured",
  "answer",
  "stopped",
  "failed",
]);

/** A service's own code may call process.send() too: only what is addressed to us is taken. */
export function readFromWorker(value: unknown): FromWorker | undefined {
  if (typeof value !== "object" || value === null || !("type" in value)) return undefined;
  return typeof value.type === "string" && FROM_WORKER.has(value.type) ? (value as FromWorker) : undefined;
}
