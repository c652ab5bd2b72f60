/**
 * Connections of the admin server. Invariants: there are never more than MAX_CONNECTIONS, and each has one request in
 * flight at most, so that who has no token can neither keep others out nor fill the memory with answers. When there are
 * as many as there may be, the one that has asked for nothing for the longest time makes room; whoever sends a request
 * before the last one was answered is cut off.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

const MAX_CONNECTIONS = 128;
/** For the kernel's side of the server: one more, which is let in for another, or hung up on. */
export const ACCEPTED_MAX: number = MAX_CONNECTIONS + 1;

export class AdminSockets {
  readonly #all: Set<Socket> = new Set();
  /** Those without a request in flight, who has waited longest first. */
  readonly #waiting: Set<Socket> = new Set();

  welcome(socket: Socket): void {
    if (this.#all.size >= MAX_CONNECTIONS) {
      const [longest] = this.#waiting;
      if (!longest) {
        socket.destroy();
        return;
      }
      longest.destroy();
      this.#forget(longest);
    }
    this.#all.add(socket);
    this.#waiting.add(socket);
    socket.once("close", () => this.#forget(socket));
  }

  /** A request has come. False: it is not to be answered. */
  begin({ socket }: IncomingMessage, response: ServerResponse): boolean {
    if (!this.#waiting.delete(socket)) {
      socket.destroy();
      return false;
    }
    response.once("finish", () => {
      if (this.#all.has(socket)) this.#waiting.add(socket);
    });
    return true;
  }

  cut(): void {
    for (const socket of this.#all) socket.destroy();
  }

  #forget(socket: Socket): void {
    this.#all.delete(socket);
    this.#waiting.delete(socket);
  }
}
