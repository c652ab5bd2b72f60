/**
 * Descriptors between processes: the channel that carries them, locks, and who is at the other end of a unix
 * socket. A channel is a pair of connected SOCK_SEQPACKET sockets; a message holds a tag and its descriptors, and
 * is in the receiver's queue when `sendDescriptors` returns, so an IPC message sent after it never overtakes it.
 */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { addon, type ChannelWatch } from "./addon.ts";
import { check } from "./errno.ts";

/** SO_PEERCRED of a unix socket (unix(7)): who connected, or who called listen(). */
export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

const TAG_BYTES = 64;
const { EAGAIN, ECONNRESET, ENOBUFS, EPIPE, EWOULDBLOCK } = constants.errno;
/** errno(3); Node's constants lack it. */
const ETOOMANYREFS = 109;

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

/**
 * Sends one message: 1 byte to 64 KiB, and copies of up to 253 descriptors. "full": the kernel holds as much for the
 * receiver as it may (bytes, or descriptors on their way, of which a user has no more than RLIMIT_NOFILE): try again
 * later. "gone": the other end is closed. Throws for what no later try could send.
 */
export function sendMessage(channel: number, bytes: Uint8Array, fds: readonly number[]): "sent" | "full" | "gone" {
  const result = addon().fdSend(channel, bytes, fds);
  if (result === -EAGAIN || result === -ENOBUFS || result === -ETOOMANYREFS) return "full";
  if (result === -EPIPE || result === -ECONNRESET) return "gone";
  check(result, "sendmsg");
  return "sent";
}

/**
 * Takes the next message; its descriptors are the caller's. "gone" comes after everything that the other end sent
 * before it closed. Throws when `into` is too small or no descriptor is left: the message is lost then.
 */
export function receiveMessage(
  channel: number,
  into: Uint8Array,
): { readonly length: number; readonly fds: number[] } | "empty" | "gone" {
  const result = addon().fdReceive(channel, into);
  if (result === -EAGAIN) return "empty";
  const message = check(result, "recvmsg");
  return message.length === 0 ? "gone" : message;
}

/**
 * Calls `onReadable` as long as the channel has a message or its other end is gone: once in each turn of the event
 * loop, which it keeps alive. Unwatch before closing the descriptor.
 */
export function channelWatch(channel: number, onReadable: () => void): ChannelWatch {
  return check(addon().channelWatch(channel, onReadable), "watching a channel");
}

/** Idempotent. */
export function channelUnwatch(watch: ChannelWatch): void {
  addon().channelUnwatch(watch);
}

/** Another descriptor of the same open file or socket. */
export function duplicateDescriptor(fd: number): number {
  return check(addon().fdDuplicate(fd), "dup");
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

/** The soft RLIMIT_NOFILE (Node raises it to the hard one at start); undefined when there is none. */
export function openFilesLimit(): number | undefined {
  const match = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  return match ? Number(match[1]) : undefined;
}

/** Who is at the other end, or nothing when the socket is gone. Node has no public way to a socket's descriptor. */
export function peerOf(socket: Socket): Peer | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
  if (fd === undefined || fd < 0) return undefined;
  const peer = addon().fdPeer(fd);
  return typeof peer === "number" ? undefined : peer;
}
