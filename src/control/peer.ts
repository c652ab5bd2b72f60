/** Who may talk over the control socket: the same user, or root. Both ends ask, each about the other. */
import type { Socket } from "node:net";

/** Looks up SO_PEERCRED; nothing when the socket is already gone. Comes from src/os. */
export type PeerLookup = (socket: Socket) => { readonly pid: number; readonly uid: number } | undefined;

/** Root is trusted, and may talk to whom it likes. */
export function trusted(peerUid: number, ownUid: number): boolean {
  return peerUid === ownUid || peerUid === 0;
}
