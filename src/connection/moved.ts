/**
 * What a connection takes along when it moves to another worker, and how a service's state is packed for the way.
 * Whoever holds a MovedConnection holds its descriptor: nobody reads or writes it before one of the two workers has
 * it in its engine (src/worker/migration.ts).
 */
import { deserialize, serialize } from "node:v8";
import { HeadraceError } from "../base/errors.ts";
import { isThenable } from "../base/thenable.ts";
import type { SlotCounters } from "../engine/engine.ts";
import type { Connection } from "../service/connection.ts";
import type { AnyService } from "../service/define.ts";
import type { BeatRecord } from "./beat.ts";
import { uncloneable } from "./cloneable.ts";
import type { Origin } from "./origin.ts";

/**
 * How the state travels. `none`: there is none, or the service makes a new one. `clone`: as a structured clone.
 * `own`: as what the service's `suspend` returned.
 */
export const STATE_KINDS = ["none", "clone", "own"] as const;
type StateKind = (typeof STATE_KINDS)[number];

export interface PackedState {
  readonly kind: StateKind;
  readonly bytes: Uint8Array;
}

/** All that goes on in the other worker; the clocks are the engine's, which every process shares. */
export interface ConnectionRecord extends SlotCounters {
  readonly id: string;
  readonly remote: { readonly host: string; readonly port: number };
  readonly origin: Origin | undefined;
  /** Requests that its worker had numbered: the next one of this connection gets a higher number. */
  readonly requests: number;
  /** Cursor of the codec. */
  readonly seen: number;
  readonly mode: number;
  /** Clock of its accept, and the lot of its age (due.ts). */
  readonly openedAt: number;
  /** Deadlines of its own, in the order of OWN_DEADLINES, or none. */
  readonly own: readonly number[];
  readonly beat: BeatRecord;
  /** That it has subscribed to. */
  readonly topics: readonly string[];
  /** Messages of its topics that it is too slow for, the oldest first; others may wait for the same. */
  readonly waiting: readonly Buffer[];
  readonly frameSince: number;
  readonly busyUntil: number;
  readonly backedUp: boolean;
  readonly pausedByUser: boolean;
  readonly inputEnded: boolean;
  /** False while the engine was told to pause. */
  readonly reading: boolean;
  /** Received and not used yet. */
  readonly held: Buffer;
  /** Taken for sending, and not taken by the kernel yet. */
  readonly unsent: Uint8Array;
  readonly state: PackedState;
}

export interface MovedConnection extends ConnectionRecord {
  readonly fd: number;
  /** Its place in this worker's column of the admission table; ENTRY.notCounted: it has none there. */
  readonly entry: number;
}

/** A connection of more bytes stays where it is: they would hold up a worker for too long. */
export const MOVED_BYTES_MAX: number = 64 << 20;

type Stateful = Connection<unknown, unknown> & { state: unknown };

interface Serving {
  readonly service: AnyService;
  readonly env: unknown;
}

const NOTHING = new Uint8Array();

/**
 * The state of a connection in which nothing is in flight; undefined when the service wants to keep it here.
 * Throws what `suspend` throws, and `service-invalid` for what cannot travel.
 */
export function packState(connection: Stateful, { service, env }: Serving): PackedState | undefined {
  if (!service.suspend) {
    const { state } = connection;
    if (state === undefined) return { kind: "none", bytes: NOTHING };
    const odd = uncloneable(state);
    if (odd) throw new HeadraceError("service-invalid", `${odd}, which cannot be cloned; write suspend and resume`);
    return { kind: "clone", bytes: serialize(state) };
  }
  const bytes: unknown = service.suspend(connection, env);
  if (bytes === undefined) return undefined;
  if (bytes instanceof Uint8Array) return { kind: "own", bytes };
  const kind = isThenable(bytes) ? disown(bytes) : `a value of type ${typeof bytes}`;
  throw new HeadraceError("service-invalid", `suspend returned ${kind}; allowed: a Uint8Array, or undefined`);
}

/** Gives an arrived connection its state. `version` is the other worker's. Throws what the service throws. */
export function unpackState(
  connection: Stateful,
  { service, env }: Serving,
  packed: PackedState,
  version: number,
): void {
  // A copy: what is deserialized may be views of it, and the service may keep it.
  const bytes = new Uint8Array(packed.bytes);
  connection.state = packed.kind === "clone" ? deserialize(bytes) : service.state?.(connection, env);
  const result: unknown = service.resume?.(connection, bytes, env, version);
  if (!isThenable(result)) return;
  throw new HeadraceError("service-invalid", `resume returned ${disown(result)}; it must be done when it returns`);
}

/** Nobody waits for it: a rejection would end the process. */
function disown(promise: PromiseLike<unknown>): string {
  Promise.resolve(promise).catch(() => {});
  return "a promise";
}
