/**
 * A listener for datagrams in a worker: which sockets it receives from, what it sends by, and until when. It sends by
 * its own slot's socket. When the slot is another's, late answers of handlers in flight still leave; then the socket is
 * let go, because one that is held and not received from would swallow its share of what comes.
 */
import type { EarlySocket } from "../connection/datagram-socket.ts";
import { DatagramEndpoint, type DatagramOptions } from "../connection/datagrams.ts";
import type { Engine } from "../engine/engine.ts";
import { LISTENER_DATAGRAMS } from "../os/scoreboard.ts";

export interface DatagramListenerOptions extends Omit<DatagramOptions, "transport" | "now" | "onIdle"> {
  readonly engine: Engine;
  readonly socket: EarlySocket;
  /** Slot of this worker. */
  readonly slot: number;
  /** How the engine numbers a slot's socket of this listener. */
  readonly watchOf: (slot: number) => number;
}

export class DatagramListener {
  readonly endpoint: DatagramEndpoint;
  readonly #options: DatagramListenerOptions;
  readonly #receiving = new Set<number>();
  /** Sends what is in flight, and then nothing any more. */
  #leaving = false;

  constructor(options: DatagramListenerOptions) {
    const { engine } = options;
    this.#options = options;
    const onIdle = (): void => this.#letGo();
    this.endpoint = new DatagramEndpoint({ ...options, transport: engine.datagrams, now: () => engine.now, onIdle });
    options.socket.attach(this.endpoint);
    this.#rule(options);
    engine.onTick(() => this.endpoint.tick(engine.now));
  }

  configure(settings: Pick<DatagramOptions, "limits" | "timeouts">): void {
    this.endpoint.configure(settings);
    this.#rule(settings);
  }

  /** Receives from a slot's socket, which stays the caller's. */
  receive(slot: number, fd: number): void {
    const { engine, index, watchOf } = this.#options;
    engine.datagrams.receive(watchOf(slot), index, fd, this.endpoint);
    this.#receiving.add(slot);
    if (slot === this.#options.slot) engine.datagrams.sendBy(index, fd);
  }

  /**
   * Receives from a slot no more; `queued`: first what waits there. From the worker's own: sends no more either, once
   * no handler is in flight. `substitute`: another socket of the listener to send by until then.
   */
  refuse(slot: number, { queued }: { readonly queued: boolean }, substitute = -1): void {
    const { engine, index, watchOf } = this.#options;
    if (!this.#receiving.delete(slot)) return;
    engine.datagrams.stop(watchOf(slot), { queued });
    if (slot !== this.#options.slot) return;
    this.#leaving = true;
    if (this.endpoint.inFlight === 0) this.#letGo();
    else if (substitute >= 0) engine.datagrams.sendBy(index, substitute);
  }

  /** The listener is removed: receives what waits, and lets go of everything. */
  remove(): void {
    for (const slot of this.#receiving) this.refuse(slot, { queued: true });
    this.#leaving = true;
    this.#letGo();
  }

  #letGo(): void {
    if (this.#leaving) this.#options.engine.datagrams.sendBy(this.#options.index, -1);
  }

  #rule({ limits }: Pick<DatagramOptions, "limits">): void {
    const { engine, index, row } = this.#options;
    engine.datagrams.rule(index, {
      mostBytes: limits.datagram,
      factor: limits.amplification === "off" ? 0 : limits.amplification,
      counters: row.subarray(LISTENER_DATAGRAMS),
    });
  }
}
