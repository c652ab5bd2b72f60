/**
 * A move under way, as the connection sees it. On the side it leaves: `Leaving`, from `leave` until the other worker
 * has it or it stays. On the side it comes to: `Arriving`, until the other worker is told that it has let go.
 */
import type { CloseReason } from "../base/reasons.ts";
import type { ServedConnection } from "./connection.ts";
import type { MovedConnection, PackedState } from "./moved.ts";

export interface Leaving {
  /** Told whenever nothing is in flight any more, and when the connection ends or drains: it will not move then. */
  readonly onQuiet: (connection: ServedConnection) => void;
  /** The frame clock as it stood at `since`: it stands still while the peer is not read. */
  readonly frameSince: number;
  readonly since: number;
  /** What the service gave for the way. */
  packed: PackedState | undefined;
}

/** What the service does with the connection before it may touch the socket is done when it may. */
export interface Arriving {
  readonly moved: MovedConnection;
  readonly early: Uint8Array[];
  /** Of what was unsent when it left, and of `early`. */
  bytes: number;
  ending?: { readonly reason: CloseReason; readonly how: "close" | "reset" };
}
