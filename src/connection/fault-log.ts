/**
 * Says in the log which connections ended because their peers broke the protocol: at most one line a second for each
 * reason of a listener, with how many there were and one of the addresses. So a flood of garbage costs a line a second.
 * Endpoints note each such end; the worker's tick has the lines written.
 */
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";

const EVERY_MS = 1_000;

interface Peer {
  readonly host: string;
  readonly port: number;
}

interface Faults {
  count: number;
  /** Of the first one since the last line: asked for once, because it is a call into the addon. */
  example: Peer | undefined;
  /** Clock (ms) of the last line. */
  saidAt: number;
}

export class FaultLog {
  readonly #log: Logger;
  readonly #byReason = new Map<CloseReason, Faults>();
  #pending = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** A connection ends so; it still has its slot. */
  note(reason: CloseReason, from: { readonly remote: Peer }): void {
    let faults = this.#byReason.get(reason);
    if (!faults) {
      faults = { count: 0, example: undefined, saidAt: Number.NEGATIVE_INFINITY };
      this.#byReason.set(reason, faults);
    }
    faults.count += 1;
    faults.example ??= from.remote;
    this.#pending = true;
  }

  /** Call it every tick. */
  look(now: number): void {
    if (!this.#pending) return;
    this.#pending = false;
    for (const [reason, faults] of this.#byReason) {
      if (faults.count === 0) continue;
      if (now - faults.saidAt < EVERY_MS) {
        this.#pending = true;
        continue;
      }
      const { count, example } = faults;
      faults.count = 0;
      faults.example = undefined;
      faults.saidAt = now;
      const many = count === 1 ? "a connection was" : `${count} connections were`;
      this.#log.info({ reason, count, example }, `${many} closed: ${reason}`);
    }
  }
}
