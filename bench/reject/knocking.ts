/**
 * A client that connects as fast as it can, from this process, a fixed number at a time. Who is let in leaves at once,
 * by RST, so that no port is kept in TIME_WAIT; who is turned away hears so from the server.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { Engine, type SlotOwner } from "#src/engine/engine.js";
import { packSocketOptions } from "#src/os/socket.js";

const AT_ONCE = 256;

class Knock implements SlotOwner {
  readonly #from: Knocking;
  slot = -1;
  generation = 0;

  constructor(from: Knocking) {
    this.#from = from;
  }

  onOpen(): void {
    if (this.#from.leaves) this.#end();
  }

  onEnd(): void {
    this.#end();
  }

  onError(): void {
    this.#end();
  }

  onData(): void {}
  onWritable(): void {}
  onBlocked(): void {}

  #end(): void {
    this.#from.engine.reset(this.slot, this.generation);
    this.#from.ended();
  }
}

export class Knocking {
  readonly engine: Engine = new Engine({ slots: 4_096 });
  /** Who is let in leaves; else it waits for the server to turn it away. */
  readonly leaves: boolean;
  /** Connections that have ended. */
  count = 0;
  readonly #port: number;
  readonly #options: Int32Array = packSocketOptions(DEFAULT_SOCKET);
  #open = 0;
  #running = true;

  constructor(port: number, leaves: boolean) {
    this.#port = port;
    this.leaves = leaves;
    this.#fill();
  }

  ended(): void {
    this.count += 1;
    this.#open -= 1;
    this.#fill();
  }

  async stop(): Promise<void> {
    this.#running = false;
    await sleep(100);
    this.engine.shutdown();
  }

  #fill(): void {
    while (this.#running && this.#open < AT_ONCE) {
      const knock = new Knock(this);
      const slot = this.engine.connect("127.0.0.1", this.#port, "", this.#options, knock);
      if (slot < 0) {
        // Out of ports for a moment.
        setTimeout(() => this.#fill(), 1);
        return;
      }
      knock.slot = slot;
      knock.generation = this.engine.generation(slot);
      this.#open += 1;
    }
  }
}
