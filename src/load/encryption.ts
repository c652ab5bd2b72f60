/**
 * TLS for the connections of a load process. Whom it talks to is not verified: it measures what it is pointed at. With
 * `resume` the first connection's session is taken up by all that come after it; a server that does not let one do so
 * fails that connection, because it would be another load than was asked for.
 */
import type { Engine } from "../engine/engine.ts";
import { type TlsContext, tlsAddon } from "../os/tls-addon.ts";
import type { LoadShare } from "./options.ts";

export class Encryption {
  readonly #engine: Engine;
  readonly #context: TlsContext;
  readonly #resume: boolean;
  #session: Uint8Array | undefined;
  /** Handshakes begun before there was a session: those are full ones. */
  readonly #full = new Set<number>();

  constructor(engine: Engine, { tls }: LoadShare) {
    this.#engine = engine;
    this.#resume = tls === "resume";
    this.#context = tlsAddon().context({
      side: "client",
      certificates: [],
      ca: "",
      verify: "none",
      alpn: [],
      minVersion: "TLSv1.2",
      sessionIdContext: "",
    });
  }

  begin(slot: number, generation: number): void {
    const session = this.#session;
    if (this.#resume && session === undefined) this.#full.add(slot);
    this.#engine.secure(slot, generation, this.#context, session === undefined ? {} : { session });
  }

  /** False when the handshake was not the one that is measured. */
  secured(slot: number, generation: number): boolean {
    if (!this.#resume || this.#full.delete(slot)) return true;
    return this.#engine.tls(slot, generation)?.resumed ?? false;
  }

  /** A connection ends that may have got a session. */
  keep(slot: number, generation: number): void {
    if (this.#resume) this.#session ??= this.#engine.tlsSession(slot, generation);
  }
}
