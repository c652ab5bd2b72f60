/**
 * What two generations of primaries say to each other during an upgrade, over a channel of their own.
 *
 *   new  hello ────────────────────────── armed ──────── accepting ─────────────────────────── (stays open: its end
 *   old        manifest sockets… state ───────── commit ─────────── (proving) main connections…  says that old has gone)
 *
 * Until `main` the old one may end it by closing the channel, and serves on; the new one may say `failed`. After
 * `main` the old one only gives its connections away and drains; `finish` tells it that the new one stops too.
 * Descriptors travel with the message that speaks of them. The protocol number is the first thing said.
 */

export const HANDOVER_PROTOCOL = 1;
/** Where the new primary finds its end of the channel. */
export const HANDOVER_FD = 3;
/** Tells a new primary that it is one. Read and removed before the configuration is. */
export const HANDOVER_VARIABLE = "HEADRACE_HANDOVER";

/** A listener as its sockets know it. */
interface HandedListener {
  /** See src/config/listener-key.ts. */
  readonly key: string;
  readonly port: number;
  /** Somebody else made its sockets, and keeps them. */
  readonly shared: boolean;
}

export interface Manifest {
  readonly type: "manifest";
  /** Of the sender. */
  readonly generation: number;
  readonly pid: number;
  readonly slots: number;
  /** Slots that may not be removed. */
  readonly least: number;
  /** Workers that its configuration asks for, and those that it was scaled to at run time. */
  readonly workers: number;
  readonly wanted: number;
  readonly listeners: readonly HandedListener[];
  /** Rows of all listeners that ever were and still have connections, by key. */
  readonly rows: readonly (readonly [string, number])[];
  readonly control: string;
  /** The admin server's socket, if there is one, is the last of `state`: which address it was made for. */
  readonly admin?: string;
}

/** Who is signed in at the admin server: see src/admin/auth.ts. */
interface SignedIn {
  readonly token: string;
  readonly sessions: readonly (readonly [string, number])[];
}

type ToSuccessor =
  | Manifest
  /** Slot by slot, in the order of the manifest's listeners; as many messages as it takes. */
  | { readonly type: "sockets" }
  /**
   * Admission table, control socket, its lock, memory of the topics, eventfd of the admission table, ticket keys,
   * memory of the closes, and the admin server's socket.
   */
  | { readonly type: "state" }
  | { readonly type: "commit" }
  | { readonly type: "main"; readonly admin?: SignedIn }
  /** One end of a channel: a worker gives its connections through the other. */
  | { readonly type: "connections"; readonly slot: number };

type ToPredecessor =
  | { readonly type: "hello"; readonly protocol: number; readonly pid: number; readonly version: string }
  | { readonly type: "armed" }
  | { readonly type: "accepting" }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "finish" };

export type HandoverMessage = ToSuccessor | ToPredecessor;
