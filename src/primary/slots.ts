/**
 * The listening sockets. A slot is one worker's share: a socket per listener. The primary holds a copy of each
 * from the moment it is bound, so a worker's death neither closes a socket nor loses the clients in its queue, and
 * its replacement receives the very same ones.
 */
import { boundPort, closeDescriptor } from "../os/descriptors.ts";

export class Slots {
  /** Per worker, in listener order. */
  readonly #sockets: (readonly number[])[] = [];
  #ports: readonly number[];

  /** `ports` as configured; where it says 0, all slots share what the first one got. */
  constructor(ports: readonly number[]) {
    this.#ports = ports;
  }

  /** Actual, once the first slot is deposited. */
  get ports(): readonly number[] {
    return this.#ports;
  }

  /** Takes a worker's sockets into keeping. */
  deposit(worker: number, sockets: readonly number[]): void {
    if (this.#sockets.length === 0) this.#ports = sockets.map(boundPort);
    this.#sockets[worker] = sockets;
  }

  of(worker: number): readonly number[] {
    return this.#sockets[worker] ?? [];
  }

  /** Closes the primary's copies. A socket ends with its last holder, so the workers' go on working. */
  release(): void {
    for (const fd of this.#sockets.splice(0).flat()) closeDescriptor(fd);
  }
}
