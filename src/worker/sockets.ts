/**
 * A worker's listening sockets: bound at a first start, received at a replacement. Either way the primary holds
 * copies too, so closing these ends a socket only once the primary has let go of it.
 */
import type { ListenerConfig } from "../config/config.ts";
import { SLOTS_TAG, WORKER_FDS } from "../control/worker-messages.ts";
import { addon } from "../os/addon.ts";
import { closeDescriptor, receiveDescriptors, sendDescriptors } from "../os/descriptors.ts";
import { errnoName } from "../os/errno.ts";
import { packSocketOptions } from "../os/socket.ts";

/** The listener that could not be bound, and why. */
export interface Unbound {
  readonly listener: number;
  readonly errno: string;
}

/**
 * Binds one socket per listener on `ports` and deposits copies with the primary. `exclusive` is for the first
 * worker: it fails where anybody else listens, while those after it join.
 */
export function bindSockets(
  listeners: readonly ListenerConfig[],
  ports: readonly number[],
  exclusive: boolean,
): number[] | Unbound {
  const sockets: number[] = [];
  for (const [index, { address, socket }] of listeners.entries()) {
    const fd = addon().socketListen(address.host, ports[index] ?? address.port, exclusive, packSocketOptions(socket));
    if (fd < 0) {
      closeSockets(sockets);
      return { listener: index, errno: errnoName(fd) };
    }
    sockets.push(fd);
  }
  sendDescriptors(WORKER_FDS.channel, SLOTS_TAG, sockets);
  return sockets;
}

/** The sockets of this worker's predecessor, one per listener. */
export function takeSockets(count: number): number[] {
  return receiveDescriptors(WORKER_FDS.channel, SLOTS_TAG, count);
}

export function closeSockets(sockets: readonly number[]): void {
  for (const fd of sockets) closeDescriptor(fd);
}
