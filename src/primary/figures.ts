/**
 * The figures of `status`, read from the scoreboard without asking any worker. A block belongs to the process in
 * that seat: before another gets it empty, what the dead one counted is added to what is kept here, so that the
 * server's totals never go back.
 */
import { CLOSE_REASONS, type CloseReason, REJECT_REASONS, type RejectReason, reasonIndex } from "../base/reasons.ts";
import type { ListenerStatus, Traffic } from "../control/status.ts";
import {
  DATAGRAM_FIELDS,
  type DatagramField,
  LISTENER_CLOSED,
  LISTENER_DATAGRAMS,
  LISTENER_FIELDS,
  type ListenerField,
  type Scoreboard,
  WORKER_REJECTED,
} from "../os/scoreboard.ts";

/** Of what is now. */
const ACTIVE = LISTENER_FIELDS.indexOf("active");
const PREFACES = LISTENER_FIELDS.indexOf("prefaces");
const IN_FLIGHT = LISTENER_FIELDS.indexOf("inFlight");

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const NOW_NONE = { open: 0, bytesHeldIn: 0, bytesHeldOut: 0 } as const;
const NONE: Traffic = {
  ...NOW_NONE,
  ...{ accepted: 0, rejected: 0, requests: 0, shed: 0, bytesReceived: 0, bytesSent: 0, published: 0, dropped: 0 },
  ...{ late: 0, cancelled: 0, logDropped: 0 },
};

function add(into: Mutable<Traffic>, from: Traffic): void {
  for (const key of Object.keys(NONE) as (keyof Traffic)[]) into[key] += from[key];
}

function addRow(into: Float64Array, from: Float64Array): void {
  for (let cell = 0; cell < into.length; cell++) into[cell] = (into[cell] ?? 0) + (from[cell] ?? 0);
}

/** Who and what is counted at the moment. */
export interface Counted {
  /** Seats of living workers. */
  readonly seats: Iterable<number>;
  /** Rows of listeners. */
  readonly rows: readonly number[];
}

export class Figures {
  readonly #scoreboard: Scoreboard;
  readonly #counted: () => Counted;
  readonly #retired: Mutable<Traffic> = { ...NONE };
  /** By REJECT_REASONS, of dead workers. */
  readonly #retiredRejections: number[] = REJECT_REASONS.map(() => 0);
  /** What dead workers counted, by row. */
  readonly #retiredRows = new Map<number, Float64Array>();
  /** The same of listeners that are no more. */
  readonly #gone: Float64Array;

  constructor(scoreboard: Scoreboard, counted: () => Counted) {
    this.#scoreboard = scoreboard;
    this.#counted = counted;
    this.#gone = new Float64Array(scoreboard.block(0).row(0).length);
  }

  /** Of one worker, since it started. */
  worker(seat: number): Traffic {
    const { rows } = this.#counted();
    const block = this.#scoreboard.block(seat);
    return {
      open: block.sum("active", rows),
      accepted: block.get("accepted"),
      rejected: block.get("rejected"),
      requests: block.sum("requests", rows),
      shed: block.sum("shed", rows),
      late: block.sum("late", rows),
      cancelled: block.sum("cancelled", rows),
      bytesReceived: block.get("bytesReceived"),
      bytesSent: block.get("bytesSent"),
      published: block.get("published"),
      dropped: block.get("dropped"),
      logDropped: block.get("logDropped"),
      bytesHeldIn: block.get("bytesHeldIn"),
      bytesHeldOut: block.get("bytesHeldOut"),
    };
  }

  /** Connections that came to a worker from another, and went from it to another. */
  moves(seat: number): { movedIn: number; movedOut: number } {
    const block = this.#scoreboard.block(seat);
    return { movedIn: block.get("movedIn"), movedOut: block.get("movedOut") };
  }

  /** Tasks that wait in a worker's thread pools. */
  waiting(seat: number): number {
    return this.#scoreboard.block(seat).get("waiting");
  }

  totals(): Traffic {
    const total = { ...this.#retired };
    for (const seat of this.#counted().seats) add(total, this.worker(seat));
    return total;
  }

  listener(row: number): Omit<ListenerStatus, "name" | "address" | "service"> {
    const sum = (field: ListenerField): number => this.#cell(row, LISTENER_FIELDS.indexOf(field));
    return {
      open: sum("active"),
      prefaces: sum("prefaces"),
      opened: sum("opened"),
      requests: sum("requests"),
      shed: sum("shed"),
      handshakes: sum("handshakes"),
      resumed: sum("resumed"),
    };
  }

  /** Of a listener for datagrams. */
  datagrams(row: number): Record<DatagramField, number> {
    const counts = DATAGRAM_FIELDS.map((field, index) => [field, this.#cell(row, LISTENER_DATAGRAMS + index)]);
    return Object.fromEntries(counts) as Record<DatagramField, number>;
  }

  closes(): Record<CloseReason, number> {
    const { rows } = this.#counted();
    const sum = (cell: number): number =>
      rows.reduce((total, row) => total + this.#cell(row, cell), this.#gone[cell] ?? 0);
    return Object.fromEntries(CLOSE_REASONS.map((reason, index) => [reason, sum(LISTENER_CLOSED + index)])) as Record<
      CloseReason,
      number
    >;
  }

  rejections(): Record<RejectReason, number> {
    const seats = [...this.#counted().seats];
    const sum = (index: number): number =>
      seats.reduce((total, seat) => total + this.#rejected(seat, index), this.#retiredRejections[index] ?? 0);
    return Object.fromEntries(REJECT_REASONS.map((reason, index) => [reason, sum(index)])) as Record<
      RejectReason,
      number
    >;
  }

  /** Takes a dead worker's counts over and clears its block. Its connections are gone with it. */
  retire(seat: number): void {
    const { rows } = this.#counted();
    const block = this.#scoreboard.block(seat);
    add(this.#retired, { ...this.worker(seat), ...NOW_NONE });
    for (const index of this.#retiredRejections.keys()) {
      this.#retiredRejections[index] = (this.#retiredRejections[index] ?? 0) + this.#rejected(seat, index);
    }
    for (const index of rows) {
      const counted = block.row(index);
      // What was open ended with the worker.
      const killed = LISTENER_CLOSED + reasonIndex("killed");
      for (const open of [ACTIVE, PREFACES]) counted[killed] = (counted[killed] ?? 0) + (counted[open] ?? 0);
      const row = this.#retiredRows.get(index) ?? new Float64Array(counted.length);
      this.#retiredRows.set(index, row);
      addRow(row, counted);
      for (const now of [ACTIVE, PREFACES, IN_FLIGHT]) row[now] = 0;
    }
    block.clear(rows);
  }

  /** A listener is no more, nor any worker that knew it: its row is another's from now on. */
  forget(row: number): void {
    const retired = this.#retiredRows.get(row);
    if (retired) addRow(this.#gone, retired);
    this.#retiredRows.delete(row);
  }

  #rejected(seat: number, index: number): number {
    return this.#scoreboard.block(seat).head[WORKER_REJECTED + index] ?? 0;
  }

  #cell(row: number, cell: number): number {
    let total = this.#retiredRows.get(row)?.[cell] ?? 0;
    for (const seat of this.#counted().seats) total += this.#scoreboard.block(seat).row(row)[cell] ?? 0;
    return total;
  }
}
