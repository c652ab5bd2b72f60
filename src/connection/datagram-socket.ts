/**
 * The socket that a service gets in its `env`, which is made before there is one: until the worker serves nothing can be
 * sent by it.
 */
import { HeadraceError } from "../base/errors.ts";
import { endWords } from "../engine/datagram-end.ts";
import type { SendResult } from "../service/connection.ts";
import type { DatagramSource, UdpSocket } from "../service/udp.ts";
import { Source } from "./datagram-source.ts";
import type { DatagramEndpoint } from "./datagrams.ts";

export class EarlySocket implements UdpSocket {
  readonly #listener: number;
  #endpoint: DatagramEndpoint | undefined;

  constructor(listener: number) {
    this.#listener = listener;
  }

  attach(endpoint: DatagramEndpoint): void {
    this.#endpoint = endpoint;
  }

  send(message: string | Uint8Array, to: DatagramSource): SendResult {
    if (!(to instanceof Source)) {
      const allowed = "a handler's `from`, what its keep() returned, or socket.source(host, port)";
      throw new HeadraceError("service-invalid", `socket.send: that is nowhere to send to; allowed: ${allowed}`);
    }
    return this.#endpoint ? this.#endpoint.sendTo(message, to) : "closed";
  }

  source(host: string, port: number): DatagramSource {
    const owner = {
      sendTo: (message: string | Uint8Array, to: Source) => this.send(message, to),
      isVerified: (source: Source) => this.#endpoint?.isVerified(source) ?? false,
      verify: (source: Source) => this.#endpoint?.verify(source),
      isOver: () => false,
    };
    return new Source(owner, endWords(host, port, this.#listener));
  }
}
