/**
 * The figures of `status`, read from the scoreboard without asking any worker. A worker's block belongs to the
 * process that fills it: before a replacement starts with an empty one, what the dead one counted is added to
 * what is kept here, so that the server's totals never go back.
 */
import { CLOSE_REASONS, type CloseReason, reasonIndex } from "../base/reasons.ts";
import type { Config } from "../config/config.ts";
import type { ListenerStatus, Traffic } from "../control/status.ts";
import { LISTENER_CLOSED, LISTENER_FIELDS, type ListenerField, type Scoreboard } from "../os/scoreboard.ts";
import { serviceLabel } from "./label.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const NONE: Traffic = { open: 0, accepted: 0, rejected: 0, requests: 0, bytesReceived: 0, bytesSent: 0 };

function add(into: Mutable<Traffic>, from: Traffic): void {
  for (const key of Object.keys(NONE) as (keyof Traffic)[]) into[key] += from[key];
}

export class Figures {
  readonly #config: Config;
  readonly #scoreboard: Scoreboard;
  readonly #retired: Mutable<Traffic> = { ...NONE };
  /** Per listener, as a scoreboard row. */
  readonly #retiredRows: Float64Array[];

  constructor(config: Config, scoreboard: Scoreboard) {
    this.#config = config;
    this.#scoreboard = scoreboard;
    this.#retiredRows = config.listeners.map((_, index) => new Float64Array(scoreboard.block(0).row(index).length));
  }

  /** Of one worker, since it started. */
  worker(index: number): Traffic {
    const block = this.#scoreboard.block(index);
    return {
      open: block.sum("active"),
      accepted: block.get("accepted"),
      rejected: block.get("rejected"),
      requests: block.sum("requests"),
      bytesReceived: block.get("bytesReceived"),
      bytesSent: block.get("bytesSent"),
    };
  }

  totals(): Traffic {
    const total = { ...this.#retired };
    for (let index = 0; index < this.#config.workers; index++) add(total, this.worker(index));
    return total;
  }

  listeners(addresses: readonly string[]): ListenerStatus[] {
    return this.#config.listeners.map(({ name, service }, index) => ({
      name,
      address: addresses[index] ?? "",
      service: serviceLabel(service),
      open: this.#sum(index, "active"),
      opened: this.#sum(index, "opened"),
      requests: this.#sum(index, "requests"),
    }));
  }

  closes(): Record<CloseReason, number> {
    const sum = (reason: number): number =>
      this.#config.listeners.reduce((total, _, index) => total + this.#cell(index, LISTENER_CLOSED + reason), 0);
    return Object.fromEntries(CLOSE_REASONS.map((reason, index) => [reason, sum(index)])) as Record<
      CloseReason,
      number
    >;
  }

  /** Takes a dead worker's counts over and clears its block and its admission. Its connections are gone with it. */
  retire(worker: number): void {
    const block = this.#scoreboard.block(worker);
    add(this.#retired, { ...this.worker(worker), open: 0 });
    for (const [index, row] of this.#retiredRows.entries()) {
      const counted = block.row(index);
      // What was open ended with the worker.
      const killed = LISTENER_CLOSED + reasonIndex("killed");
      counted[killed] = (counted[killed] ?? 0) + (counted[LISTENER_FIELDS.indexOf("active")] ?? 0);
      for (let cell = 0; cell < row.length; cell++) row[cell] = (row[cell] ?? 0) + (counted[cell] ?? 0);
      row[LISTENER_FIELDS.indexOf("active")] = 0;
      row[LISTENER_FIELDS.indexOf("inFlight")] = 0;
    }
    block.clear();
    this.#scoreboard.clearColumn(worker);
  }

  #sum(listener: number, field: ListenerField): number {
    return this.#cell(listener, LISTENER_FIELDS.indexOf(field));
  }

  #cell(listener: number, cell: number): number {
    let total = this.#retiredRows[listener]?.[cell] ?? 0;
    for (let worker = 0; worker < this.#config.workers; worker++) {
      total += this.#scoreboard.block(worker).row(listener)[cell] ?? 0;
    }
    return total;
  }
}
