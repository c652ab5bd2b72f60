/**
 * The listening sockets that a worker holds: those of its own slot and, so that it can serve a sibling's, those of
 * every other. The primary holds copies too: closing these ends a socket only once all others have let go of it.
 */
import type { ListenerConfig } from "../config/config.ts";
import { SLOTS_TAG, SOCKETS_PER_MESSAGE, WORKER_FDS } from "../control/worker-messages.ts";
import { closeDescriptor, receiveDescriptors, sendDescriptors } from "../os/descriptors.ts";
import { errnoName } from "../os/errno.ts";
import { bindSocket } from "../os/listening.ts";
import { packSocketOptions } from "../os/socket.ts";

/** The listener that could not be bound, and why. */
export interface Unbound {
  readonly listener: number;
  readonly errno: string;
}

const NONE = -1;

export class HeldSockets {
  /** Per slot, in listener order; -1 where a listener was removed. */
  readonly #slots = new Map<number, number[]>();

  get slots(): readonly number[] {
    return [...this.#slots.keys()];
  }

  of(slot: number): readonly number[] {
    return this.#slots.get(slot) ?? [];
  }

  /**
   * Binds one socket per listener on `ports` for `slot` and deposits copies with the primary. `exclusive` is for the
   * first of all: it fails where anybody else listens, while those after it join.
   */
  bind(
    slot: number,
    listeners: readonly ListenerConfig[],
    ports: readonly number[],
    exclusive: boolean,
  ): Unbound | undefined {
    const sockets: number[] = [];
    for (const [index, { address, socket }] of listeners.entries()) {
      const fd = bindSocket(address, ports[index] ?? address.port, exclusive, packSocketOptions(socket));
      if (fd < 0) {
        for (const bound of sockets) closeDescriptor(bound);
        return { listener: index, errno: errnoName(fd) };
      }
      sockets.push(fd);
    }
    sendDescriptors(WORKER_FDS.channel, SLOTS_TAG, sockets);
    this.#slots.set(slot, sockets);
    return undefined;
  }

  /** Takes the sockets of `slots` out of the channel: one for each of `listeners` (places in the configuration). */
  take(slots: readonly number[], listeners: readonly number[]): void {
    const all: number[] = [];
    const total = slots.length * listeners.length;
    while (all.length < total) {
      const next = Math.min(SOCKETS_PER_MESSAGE, total - all.length);
      all.push(...receiveDescriptors(WORKER_FDS.channel, SLOTS_TAG, next));
    }
    for (const slot of slots) {
      this.drop(slot);
      const sockets: number[] = [];
      for (const [index, fd] of all.splice(0, listeners.length).entries()) sockets[listeners[index] ?? index] = fd;
      this.#slots.set(
        slot,
        Array.from(sockets, (fd) => fd ?? NONE),
      );
    }
  }

  /** Closes the sockets of a slot. */
  drop(slot: number): void {
    for (const fd of this.of(slot)) if (fd !== NONE) closeDescriptor(fd);
    this.#slots.delete(slot);
  }

  /** Closes the sockets of one listener in every slot. */
  unlist(listener: number): void {
    for (const sockets of this.#slots.values()) {
      const fd = sockets[listener] ?? NONE;
      if (fd !== NONE) closeDescriptor(fd);
      sockets[listener] = NONE;
    }
  }

  close(): void {
    for (const slot of this.slots) this.drop(slot);
  }
}
