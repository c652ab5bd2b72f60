/**
 * What primary and worker say to each other over Node's IPC. The order of a first start:
 *
 *   primary  start ──────── bind ─────── accept ─────────── stop | abort
 *   worker          loaded ────── bound ──────── accepting ────────────── stopped
 *
 * A replacement gets `take` instead of `bind`: its slot's sockets already exist. `take`, and the `bound` after a
 * `bind`, follow their descriptors on the worker's channel. `failed` may come at any time and is followed by the
 * worker's end.
 * The configuration's type is a parameter, because this folder stands below the one that would give it a meaning.
 */
import type { ErrorCode, ErrorFields } from "../base/errors.ts";

/** Tag of the message on the descriptor channel that holds a slot's sockets, in listener order. */
export const SLOTS_TAG = "slots";

/** Where fork() puts a worker's own descriptors: 0 to 2 are the standard ones, 3 is Node's IPC. */
export const WORKER_FDS = { channel: 4, scoreboard: 5 } as const;

export interface StartOrder<Config> {
  readonly type: "start";
  readonly worker: number;
  readonly config: Config;
  /** Log lines for people instead of JSON. */
  readonly pretty: boolean;
}

export type ToWorker<Config> =
  | StartOrder<Config>
  /** Bind one socket per listener, on `ports` (0: any), and deposit copies. */
  | { readonly type: "bind"; readonly exclusive: boolean; readonly ports: readonly number[] }
  /** Use the sockets in the channel. */
  | { readonly type: "take" }
  | { readonly type: "accept" }
  | { readonly type: "stop"; readonly drainMs: number }
  | { readonly type: "abort" };

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

export type FromWorker =
  | { readonly type: "loaded" }
  | { readonly type: "bound" }
  | { readonly type: "accepting" }
  | { readonly type: "stopped"; readonly closed: number; readonly forced: number }
  | WorkerFailure;

const FROM_WORKER: ReadonlySet<string> = new Set<FromWorker["type"]>([
  "loaded",
  "bound",
  "accepting",
  "stopped",
  "failed",
]);

/** A service's own code may call process.send() too: only what is addressed to us is taken. */
export function readFromWorker(value: unknown): FromWorker | undefined {
  if (typeof value !== "object" || value === null || !("type" in value)) return undefined;
  return typeof value.type === "string" && FROM_WORKER.has(value.type) ? (value as FromWorker) : undefined;
}
