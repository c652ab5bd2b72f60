/**
 * One end of the channel between two workers: messages in, one per turn of the event loop, and messages out. The
 * channel is a pair of SOCK_SEQPACKET sockets, so what was sent is in the other side's queue, survives the sender,
 * and is read there before its end.
 */
import { read, readSync, write, writevSync } from "node:fs";
import { promisify } from "node:util";
import { HeadraceError } from "../base/errors.ts";
import { addon, type ChannelWatch } from "../os/addon.ts";
import { channelUnwatch, channelWatch, closeDescriptor, receiveMessage, sendMessage } from "../os/descriptors.ts";
import { check } from "../os/errno.ts";

/** The largest message (src/os/descriptors.ts). */
const MESSAGE_BYTES = 64 * 1024;
/** The kernel holds as much for the other side as it may: it is asked again after this, ms. */
const RETRY_MS = 5;

export interface ChannelListener<In> {
  /** The descriptors are the listener's. What it throws is told to `broken`. */
  message(message: In, fds: readonly number[]): void;
  /** The other side has closed its end or died; comes after its last message. */
  gone(): void;
  /** A message could not be received or understood. */
  broken(error: unknown): void;
}

interface Outgoing {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  readonly done: (sent: boolean) => void;
}

export class MoveChannel<In, Out> {
  readonly #fd: number;
  readonly #watch: ChannelWatch;
  readonly #into: Buffer = Buffer.allocUnsafeSlow(MESSAGE_BYTES);
  readonly #listener: ChannelListener<In>;
  readonly #outbox: Outgoing[] = [];
  #retry: NodeJS.Timeout | undefined;
  #open = true;

  /** `fd` is the channel's from now on. */
  constructor(fd: number, listener: ChannelListener<In>) {
    this.#fd = fd;
    this.#listener = listener;
    this.#watch = channelWatch(fd, () => this.#receive());
  }

  /** Messages that wait for the kernel to take them. */
  get waiting(): number {
    return this.#outbox.length;
  }

  /** Sends now or not at all; true when it is in the other side's queue. */
  sendNow(message: Out): boolean {
    return this.#open && sendMessage(this.#fd, Buffer.from(JSON.stringify(message)), []) === "sent";
  }

  /** Sends now or as soon as the kernel takes it. `done` hears whether the other side has it in its queue. */
  send(message: Out, fds: readonly number[] = [], done: (sent: boolean) => void = () => {}): void {
    if (!this.#open) {
      done(false);
      return;
    }
    this.#outbox.push({ bytes: Buffer.from(JSON.stringify(message)), fds, done });
    if (!this.#retry) this.#flush();
  }

  /** Idempotent. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearTimeout(this.#retry);
    for (const { done } of this.#outbox.splice(0)) done(false);
    channelUnwatch(this.#watch);
    closeDescriptor(this.#fd);
  }

  #flush(): void {
    this.#retry = undefined;
    for (let next = this.#outbox[0]; next && this.#open; next = this.#outbox[0]) {
      const result = this.#trySend(next);
      if (result === "full") {
        this.#retry = setTimeout(() => this.#flush(), RETRY_MS);
        return;
      }
      this.#outbox.shift();
      // A side that is gone is told by reading, after its last messages.
      next.done(result === "sent");
    }
  }

  #trySend({ bytes, fds }: Outgoing): "sent" | "full" | "gone" | "failed" {
    try {
      return sendMessage(this.#fd, bytes, fds);
    } catch (error) {
      this.#listener.broken(error);
      return "failed";
    }
  }

  #receive(): void {
    if (!this.#open) return;
    try {
      const message = receiveMessage(this.#fd, this.#into);
      if (message === "empty") return;
      if (message === "gone") {
        channelUnwatch(this.#watch);
        this.#listener.gone();
        return;
      }
      this.#listener.message(JSON.parse(this.#into.toString("utf8", 0, message.length)), message.fds);
    } catch (error) {
      // It closed with messages unread (unix(7)). That comes first: its own messages can still be read.
      if (error instanceof HeadraceError && error.fields.errno === "ECONNRESET") return;
      this.#listener.broken(error);
    }
  }
}

function createMemory(bytes: number): number {
  return check(addon().memoryCreate("headrace-move", bytes), "memfd_create");
}

/** A memfd that holds the parts one behind the other; the caller's. */
export function writeMemory(parts: readonly Uint8Array[], bytes: number): number {
  const fd = createMemory(bytes);
  try {
    if (writevSync(fd, parts, 0) !== bytes) throw new RangeError("migration: the memory was not written whole");
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

export function readMemory(fd: number, bytes: number): Buffer {
  const target = Buffer.allocUnsafeSlow(bytes);
  if (readSync(fd, target, 0, bytes, 0) !== bytes) throw new RangeError("migration: the memory is too short");
  return target;
}

/** The same for much at once, in another thread. */
export async function writeLargeMemory(bytes: Uint8Array): Promise<number> {
  const fd = createMemory(bytes.length);
  try {
    const { bytesWritten } = await promisify(write)(fd, bytes, 0, bytes.length, 0);
    if (bytesWritten !== bytes.length) throw new RangeError("migration: the memory was not written whole");
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

export async function readLargeMemory(fd: number, bytes: number): Promise<Buffer> {
  const target = Buffer.allocUnsafeSlow(bytes);
  const { bytesRead } = await promisify(read)(fd, target, 0, bytes, 0);
  if (bytesRead !== bytes) throw new RangeError("migration: the memory is too short");
  return target;
}
