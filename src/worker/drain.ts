/**
 * How the connections of a worker that stops come to their end: all of them at once are told goodbye and have `drainMs`
 * for what is in flight; but those with TLS, which cannot move to the successor, stay when there is one, and are told
 * one after the other over `tlsMs`. Whoever is still there when the time is up is reset.
 */
import type { ServedConnection } from "../connection/connection.ts";
import type { Engine } from "../engine/engine.ts";
import { Farewell } from "./farewell.ts";

/** Once accepting has stopped, what the kernel and the peers still have on its way gets this long to arrive, ms. */
const GRACE_MS = 100;

export interface DrainOptions {
  readonly engine: Engine;
  /** Those that are open. */
  connections(): ServedConnection[];
  /** How many there are, with those on their way to another worker and those whose last bytes are. */
  served(): number;
  readonly drainMs: number;
  /** 0: connections with TLS are told with the others. */
  readonly tlsMs: number;
}

export class Drain {
  /** Settles when none is open, or when it was ended. */
  readonly done: Promise<void>;
  /** Connections that were reset because time was up. */
  forced = 0;
  readonly #options: DrainOptions;
  /** Clock (ms): when the first are told, when those without TLS are reset, and all. */
  #toldAt: number;
  #plainEndsAt: number;
  #endsAt: number;
  #farewell: Farewell;
  #finish: () => void = () => {};

  constructor(options: DrainOptions) {
    const { engine, drainMs, tlsMs } = options;
    this.#options = options;
    this.#toldAt = engine.now + Math.min(GRACE_MS, drainMs);
    this.#plainEndsAt = engine.now + drainMs;
    this.#endsAt = this.#plainEndsAt + tlsMs;
    this.#farewell = new Farewell(engine.now, tlsMs);
    this.done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    engine.onTick(() => this.#tick());
  }

  /** Connections with TLS have no more time than all others, which have so much from now on. */
  hasten(drainMs: number): void {
    const { now } = this.#options.engine;
    this.#plainEndsAt = Math.min(this.#plainEndsAt, now + drainMs);
    this.#endsAt = Math.min(this.#endsAt, now + drainMs);
    this.#farewell = new Farewell(now, 0);
  }

  /** It is not waited for any more. */
  end(): void {
    this.#finish();
  }

  #tick(): void {
    const { now } = this.#options.engine;
    const open = this.#options.connections();
    if (now >= this.#toldAt) this.#tell(open, now);
    const onlyPlain = now >= this.#plainEndsAt && !open.some((connection) => connection.tls);
    if (this.#options.served() === 0 || now >= this.#endsAt || onlyPlain) this.#finish();
  }

  #tell(open: readonly ServedConnection[], now: number): void {
    const { engine } = this.#options;
    const untold = open.filter((connection) => connection.tls && !connection.draining);
    for (const connection of untold.slice(0, this.#farewell.due(untold.length, now))) connection.drain();
    for (const connection of open) {
      if (connection.tls) continue;
      // Each time: a connection that could not move comes back.
      connection.drain();
      if (now >= this.#plainEndsAt) this.#force(connection);
    }
    engine.flush();
  }

  #force(connection: ServedConnection): void {
    if (connection.closed) return;
    connection.reset("drain");
    this.forced += 1;
  }
}
