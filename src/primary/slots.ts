/**
 * The listening sockets. A slot is one worker's share: a socket per listener. The primary holds a copy of each from
 * the moment it is bound until its address or its slot is removed, so a worker's death neither closes a socket nor
 * loses the clients in its queue. Sockets are known by slot and listener key, not by their place in a list: the
 * configuration may change its order.
 */
import type { ListenerConfig } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import { addon } from "../os/addon.ts";
import { boundPort, closeDescriptor, duplicateDescriptor } from "../os/descriptors.ts";

/** Hears of every socket that is kept or let go, but for those that somebody else keeps. */
export interface SlotsObserver {
  onKept(key: string, slot: number, fd: number): void;
  onRemoved(key: string, slot: number): void;
}

export class Slots {
  /** Per slot, by listener key. */
  readonly #sockets: Map<string, number>[] = [];
  /** By listener key: actual, also where the configuration says 0. */
  readonly #ports = new Map<string, number>();
  /** Slots that are never removed. */
  least = 1;
  /** Keys of listeners whose sockets somebody else made and keeps (socket activation). */
  readonly #shared = new Set<string>();
  #observer: SlotsObserver | undefined;
  /** By key of listeners for datagrams: what the kernel dropped at sockets that are no more. */
  readonly #overflown = new Map<string, number>();

  get count(): number {
    return this.#sockets.length;
  }

  /** 0 to count - 1. */
  get indices(): number[] {
    return [...this.#sockets.keys()];
  }

  /** Actual port of a listener; as configured while it is not bound. */
  portOf(listener: ListenerConfig): number {
    return this.#ports.get(listenerKey(listener)) ?? listener.address.port;
  }

  has(slot: number, listener: ListenerConfig): boolean {
    return this.#sockets[slot]?.has(listenerKey(listener)) ?? false;
  }

  /** By listener: its key, its port, and whether its sockets are somebody else's. In no order that means anything. */
  get listeners(): { key: string; port: number; shared: boolean }[] {
    return [...this.#ports].map(([key, port]) => ({ key, port, shared: this.#shared.has(key) }));
  }

  /** The observer hears of those that are kept already, too. */
  observe(observer: SlotsObserver): void {
    this.#observer = observer;
    for (const [slot, sockets] of this.#sockets.entries()) {
      for (const [key, fd] of sockets) if (!this.#shared.has(key)) observer.onKept(key, slot, fd);
    }
  }

  /** Takes a socket into keeping. */
  keep(slot: number, listener: ListenerConfig, fd: number): void {
    this.keepAs(slot, listenerKey(listener), fd);
  }

  /** The same by key. */
  keepAs(slot: number, key: string, fd: number): void {
    while (this.#sockets.length <= slot) this.#sockets.push(new Map());
    const before = this.#sockets[slot]?.get(key);
    if (before !== undefined && before !== fd) closeDescriptor(before);
    this.#sockets[slot]?.set(key, fd);
    this.#ports.set(key, boundPort(fd));
    if (!this.#shared.has(key)) this.#observer?.onKept(key, slot, fd);
  }

  /** Marks a listener as one whose sockets are somebody else's. */
  share(key: string): void {
    this.#shared.add(key);
  }

  /** The sockets of every slot, slot by slot, in the order of `keys`. */
  byKey(keys: readonly string[]): number[] {
    return this.#sockets.flatMap((sockets) => keys.flatMap((key) => sockets.get(key) ?? []));
  }

  /**
   * Takes a listener's sockets that somebody else made and keeps (a socket unit) for slots 0 to `count` - 1. Where
   * there are fewer sockets than slots, slots share them; where there are more, more slots there are, and stay: a
   * socket that nobody accepted from would hang its clients.
   */
  keepShared(count: number, listener: ListenerConfig, fds: readonly number[]): void {
    const key = listenerKey(listener);
    this.share(key);
    this.least = Math.max(this.least, fds.length);
    for (let slot = 0; slot < Math.max(count, fds.length); slot++) {
      const fd = fds[slot % fds.length] ?? -1;
      this.keepAs(slot, key, slot < fds.length ? fd : duplicateDescriptor(fd));
    }
  }

  /** Slot `slot` of a listener that others made gets a copy of one of its sockets. */
  copyShared(slot: number, listener: ListenerConfig): void {
    this.keep(slot, listener, duplicateDescriptor(this.socket(slot % this.least, listener)));
  }

  shared(listener: ListenerConfig): boolean {
    return this.#shared.has(listenerKey(listener));
  }

  /** The socket of a slot and a listener, ours. */
  socket(slot: number, listener: ListenerConfig): number {
    const fd = this.#sockets[slot]?.get(listenerKey(listener));
    if (fd === undefined) throw new Error(`slots: no socket of "${listener.name}" in slot ${slot}`);
    return fd;
  }

  /** The sockets of `slots`, slot by slot, each in the order of `listeners`. */
  of(slots: readonly number[], listeners: readonly ListenerConfig[]): number[] {
    return slots.flatMap((slot) => listeners.map((listener) => this.socket(slot, listener)));
  }

  /**
   * Datagrams that the kernel has dropped at the sockets of a listener, because their buffers were full: its own count
   * since they were made, which neither a worker's death nor an upgrade sets back.
   */
  overflow(listener: ListenerConfig): number {
    const key = listenerKey(listener);
    // Slots may share a socket.
    const drops = new Map<unknown, number>();
    for (const sockets of this.#sockets) {
      const fd = sockets.get(key);
      if (fd !== undefined) drops.set(addon().socketCookie(fd), Math.max(0, addon().udpDrops(fd)));
    }
    return [...drops.values()].reduce((sum, count) => sum + count, this.#overflown.get(key) ?? 0);
  }

  /** The last slot is no more: closes our copies. */
  removeLast(): void {
    const slot = this.count - 1;
    for (const [key, fd] of this.#sockets.pop() ?? []) {
      if (key.startsWith("udp|") && !this.#shared.has(key)) {
        this.#overflown.set(key, (this.#overflown.get(key) ?? 0) + Math.max(0, addon().udpDrops(fd)));
      }
      closeDescriptor(fd);
      if (!this.#shared.has(key)) this.#observer?.onRemoved(key, slot);
    }
  }

  /** A listener is no more: closes our copies in every slot. */
  removeListener(listener: ListenerConfig): void {
    const key = listenerKey(listener);
    for (const [slot, sockets] of this.#sockets.entries()) {
      const fd = sockets.get(key);
      if (fd === undefined) continue;
      closeDescriptor(fd);
      sockets.delete(key);
      if (!this.#shared.has(key)) this.#observer?.onRemoved(key, slot);
    }
    this.#ports.delete(key);
    this.#shared.delete(key);
    this.#overflown.delete(key);
  }

  /** Closes all our copies, without removing anything: whoever else holds the sockets goes on. */
  release(): void {
    for (const sockets of this.#sockets.splice(0)) for (const fd of sockets.values()) closeDescriptor(fd);
  }
}
