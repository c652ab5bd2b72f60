/**
 * Descriptors between processes: the channel that carries them, locks, and who is at the other end of a unix
 * socket. A channel is a pair of connected SOCK_SEQPACKET sockets; a message holds a tag and its descriptors, and
 * is in the receiver's queue when `sendDescriptors` returns, so an IPC message sent after it never overtakes it.
 */
import type { Socket } from "node:net";
import { constants } from "node:os";
import { addon } from "./addon.ts";
import { check } from "./errno.ts";

/** SO_PEERCRED of a unix socket (unix(7)): who connected, or who called listen(). */
export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

const TAG_BYTES = 64;
const { EWOULDBLOCK } = constants.errno;

export function openChannel(): [number, number] {
  return check(addon().fdPair(), "socketpair");
}

/** Sends copies; the descriptors stay the caller's. At most 253 (SCM_MAX_FD, unix(7)). */
export function sendDescriptors(channel: number, tag: string, fds: readonly number[]): void {
  check(addon().fdSend(channel, Buffer.from(tag), fds), "sendmsg");
}

/** Takes the next message, which must carry `tag` and `count` descriptors. They are the caller's from now on. */
export function receiveDescriptors(channel: number, tag: string, count: number): number[] {
  const into = Buffer.alloc(TAG_BYTES);
  const { length, fds } = check(addon().fdReceive(channel, into), "recvmsg");
  const given = into.toString("utf8", 0, length);
  if (given === tag && fds.length === count) return fds;
  for (const fd of fds) closeDescriptor(fd);
  throw new Error(`descriptor channel: expected ${count} of "${tag}", got ${fds.length} of "${given}"`);
}

export function closeDescriptor(fd: number): void {
  addon().fdClose(fd);
}

/** Takes an exclusive flock; false when another process holds it. It ends with the descriptor. */
export function lockDescriptor(fd: number): boolean {
  const result = addon().fdLock(fd);
  if (result === 0) return true;
  if (result === -EWOULDBLOCK) return false;
  check(result, "flock");
  return false;
}

/** The actual port of a bound socket. */
export function boundPort(fd: number): number {
  const name = check(addon().socketName(fd, false), "getsockname");
  return Number(String(name).split(" ")[1]);
}

/** Who is at the other end, or nothing when the socket is gone. Node has no public way to a socket's descriptor. */
export function peerOf(socket: Socket): Peer | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
  if (fd === undefined || fd < 0) return undefined;
  const peer = addon().fdPeer(fd);
  return typeof peer === "number" ? undefined : peer;
}
