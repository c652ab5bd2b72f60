/**
 * Sockets that the primary binds itself: of addresses that a reload adds, and where an inherited set has gaps. In the
 * order of the slots, because a socket's place in its SO_REUSEPORT group is the order of listen(). The first of an
 * address is exclusive: it fails where anybody else listens.
 */
import type { ListenerConfig } from "../config/config.ts";
import { errnoName } from "../os/errno.ts";
import { bindSocket } from "../os/listening.ts";
import { packSocketOptions } from "../os/socket.ts";
import { bindError } from "./addresses.ts";
import type { Slots } from "./slots.ts";

/** Binds what slots 0 to `count` - 1 lack of `listeners`. Throws for the first address that cannot be bound. */
export function bindMissing(slots: Slots, count: number, listeners: readonly ListenerConfig[]): void {
  for (const listener of listeners) {
    const options = packSocketOptions(listener.socket);
    let exclusive = !slots.indices.some((slot) => slots.has(slot, listener));
    for (let slot = 0; slot < count; slot++) {
      if (slots.has(slot, listener)) continue;
      const fd = bindSocket(listener.address, slots.portOf(listener), exclusive, options);
      if (fd < 0) throw bindError(errnoName(fd), listener);
      slots.keep(slot, listener, fd);
      exclusive = false;
    }
  }
}
