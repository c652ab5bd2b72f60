/**
 * Clients of this process that connect all at once and, when they are let in, stay until they are told to leave: by
 * RST, so that no port is kept in TIME_WAIT. Who is turned away hears so from the server.
 */
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { Engine } from "#src/engine/engine.js";
import { check } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";

const SLOTS = 8_192;
const OPTIONS: Int32Array = packSocketOptions(DEFAULT_SOCKET);

interface Knock {
  readonly slot: number;
  readonly generation: number;
}

export class Knocking {
  readonly #engine: Engine = new Engine({ slots: SLOTS });
  readonly #inside = new Set<Knock>();
  /** Connected: the server need not know yet. */
  connected = 0;

  knock(port: number, count: number): void {
    for (let i = 0; i < count; i++) this.#connect(port);
  }

  /** Everybody who is still there goes. */
  leave(): void {
    for (const { slot, generation } of this.#inside) this.#engine.reset(slot, generation);
    this.#inside.clear();
    this.#engine.flush();
  }

  end(): void {
    this.#engine.shutdown();
  }

  #connect(port: number): void {
    const turnedAway = (): void => {
      if (!this.#inside.delete(knock)) return;
      this.#engine.reset(knock.slot, knock.generation);
    };
    const owner = {
      onOpen: () => {
        this.connected += 1;
      },
      onData() {},
      onEnd: turnedAway,
      onError: turnedAway,
      onWritable() {},
      onBlocked() {},
    };
    const slot = check(this.#engine.connect("127.0.0.1", port, "", OPTIONS, owner), "connect");
    const knock: Knock = { slot, generation: this.#engine.generation(slot) };
    this.#inside.add(knock);
  }
}
