/**
 * The figures of `status` and of the metrics, read from the scoreboard without asking any worker. A block belongs to
 * the process in that seat: before another gets it empty, what the dead one counted is added to what is kept here for
 * its slot (past.ts), so that neither the server's totals nor those of a slot ever go back.
 */
import { CLOSE_REASONS, type CloseReason, REJECT_REASONS, type RejectReason } from "../base/reasons.ts";
import { type MetricsSnapshot, REMOVED_LISTENERS } from "../control/metrics-snapshot.ts";
import type { ListenerStatus, Traffic } from "../control/status.ts";
import {
  DATAGRAM_FIELDS,
  type DatagramField,
  LISTENER_CLOSED,
  LISTENER_DATAGRAMS,
  LISTENER_FIELDS,
  type ListenerField,
  type Scoreboard,
  WORKER_FIELDS,
  WORKER_REJECTED,
  type WorkerBlock,
  type WorkerField,
} from "../os/scoreboard.ts";
import { monotonicMs } from "./monotonic.ts";
import { begunAndNotEnded, Past } from "./past.ts";
import { type Books, type CountedWorker, type Listeners, snapshotOf } from "./snapshot.ts";

const ACTIVE = LISTENER_FIELDS.indexOf("active");
const PREFACES = LISTENER_FIELDS.indexOf("prefaces");

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Of `Traffic`: what stands in the head of a block, and what in the rows. */
const IN_HEAD = [
  "rejected",
  "bytesReceived",
  "bytesSent",
  "published",
  "dropped",
  "logDropped",
  "bytesHeldIn",
  "bytesHeldOut",
] as const satisfies readonly (keyof Traffic & WorkerField)[];
const IN_ROWS = ["accepted", "requests", "shed", "late", "cancelled"] as const satisfies readonly (keyof Traffic &
  ListenerField)[];

/** Who and what is counted at the moment. */
export interface Counted {
  /** Living workers. */
  readonly workers: readonly CountedWorker[];
  /** Rows of listeners. */
  readonly rows: readonly number[];
}

/** What a snapshot says besides. */
export interface Described {
  readonly generation: number;
  /** Slots that have, or should have, a worker of their own. */
  readonly slots: number;
  readonly listeners: Listeners;
  restartsOf(slot: number): number;
}

export class Figures {
  readonly #scoreboard: Scoreboard;
  readonly #counted: () => Counted;
  readonly #clock: () => number;
  /** What dead workers counted, by slot. */
  readonly #past = new Map<number, Past>();
  /**
   * The names that rows have had in a snapshot. One that is no listener's now was a listener's that is removed, or has
   * another address, and not a new one's. Once it counts among the removed ones it does for good.
   */
  readonly #named = new Map<number, string>();

  /** `clock`: that of the workers, ms. */
  constructor(scoreboard: Scoreboard, counted: () => Counted, clock: () => number = monotonicMs) {
    this.#scoreboard = scoreboard;
    this.#clock = clock;
    this.#counted = counted;
  }

  /** Of one worker, since it started. */
  worker(seat: number): Traffic {
    const { rows } = this.#counted();
    const block = this.#scoreboard.block(seat);
    const traffic: Partial<Mutable<Traffic>> = { open: block.sum("active", rows) };
    for (const field of IN_HEAD) traffic[field] = block.get(field);
    for (const field of IN_ROWS) traffic[field] = block.sum(field, rows);
    return traffic as Traffic;
  }

  /** Connections that came to a worker from another, and went from it to another. */
  moves(seat: number): { movedIn: number; movedOut: number } {
    const { rows } = this.#counted();
    const block = this.#scoreboard.block(seat);
    return { movedIn: block.sum("movedIn", rows), movedOut: block.sum("movedOut", rows) };
  }

  /** Tasks that wait in a worker's thread pools. */
  waiting(seat: number): number {
    return this.#scoreboard.block(seat).get("waiting");
  }

  totals(): Traffic {
    const total: Partial<Mutable<Traffic>> = { open: this.#sum(LISTENER_FIELDS.indexOf("active")) };
    for (const field of IN_HEAD) total[field] = this.#head(WORKER_FIELDS.indexOf(field));
    for (const field of IN_ROWS) total[field] = this.#sum(LISTENER_FIELDS.indexOf(field));
    return total as Traffic;
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
    const counts = CLOSE_REASONS.map((reason, index) => [reason, this.#sum(LISTENER_CLOSED + index)]);
    return Object.fromEntries(counts) as Record<CloseReason, number>;
  }

  rejections(): Record<RejectReason, number> {
    const counts = REJECT_REASONS.map((reason, index) => [reason, this.#head(WORKER_REJECTED + index)]);
    return Object.fromEntries(counts) as Record<RejectReason, number>;
  }

  /** Connections that have begun, less those that ended and those that there are: 0, but for the moment between two stores. */
  unaccounted(): number {
    const { workers, rows } = this.#counted();
    let unaccounted = 0;
    for (const { gone, rows: dead } of this.#past.values()) {
      for (const row of [...gone.values(), ...dead.values()]) unaccounted += begunAndNotEnded(row);
    }
    for (const { seat } of workers) {
      for (const index of rows) {
        // A copy: the worker goes on while this is added up.
        const row = this.#scoreboard.block(seat).row(index).slice();
        unaccounted += begunAndNotEnded(row) - (row[ACTIVE] ?? 0) - (row[PREFACES] ?? 0);
      }
    }
    return unaccounted;
  }

  /** Everything, at this moment. */
  snapshot({ generation, slots, listeners, restartsOf }: Described): MetricsSnapshot {
    const { workers, rows } = this.#counted();
    this.#settle(listeners);
    const former = new Map(
      rows.flatMap((row) => {
        const name = listeners.has(row) ? undefined : this.#named.get(row);
        return name === undefined ? [] : [[row, name] as const];
      }),
    );
    const block = (seat: number): WorkerBlock => this.#scoreboard.block(seat);
    const books: Books = { workers, rows, former, past: this.#past, block, now: this.#clock() };
    return snapshotOf(books, { generation, slots, listeners, restartsOf }, this.unaccounted());
  }

  /** Takes a dead worker's counts over for its slot and clears its block. Its connections are gone with it. */
  retire({ seat, slot }: Pick<CountedWorker, "seat" | "slot">): void {
    const { rows } = this.#counted();
    const block = this.#scoreboard.block(seat);
    const past = this.#past.get(slot) ?? new Past();
    this.#past.set(slot, past);
    past.take(block, rows);
    block.clear(rows);
  }

  /** A listener is no more, nor any worker that knew it: its row is another's from now on. */
  forget(row: number): void {
    const name = this.#named.get(row) ?? REMOVED_LISTENERS;
    this.#named.delete(row);
    for (const past of this.#past.values()) past.forget(row, name);
  }

  /** From now on the listeners are these. */
  #settle(listeners: Listeners): void {
    const names = new Set([...listeners.values()].map(({ name }) => name));
    for (const [row, name] of this.#named) if (!names.has(name)) this.#named.set(row, REMOVED_LISTENERS);
    for (const [row, { name }] of listeners) this.#named.set(row, name);
    for (const past of this.#past.values()) past.settle(names);
  }

  /** A cell of the head, over all workers that ever were. */
  #head(cell: number): number {
    let total = 0;
    for (const past of this.#past.values()) total += past.head[cell] ?? 0;
    for (const { seat } of this.#counted().workers) total += this.#scoreboard.block(seat).head[cell] ?? 0;
    return total;
  }

  /** The same of a row, */
  #cell(row: number, cell: number): number {
    let total = 0;
    for (const past of this.#past.values()) total += past.rows.get(row)?.[cell] ?? 0;
    for (const { seat } of this.#counted().workers) total += this.#scoreboard.block(seat).row(row)[cell] ?? 0;
    return total;
  }

  /** and over all rows that ever were. */
  #sum(cell: number): number {
    let total = 0;
    for (const past of this.#past.values()) for (const gone of past.gone.values()) total += gone[cell] ?? 0;
    for (const row of this.#counted().rows) total += this.#cell(row, cell);
    return total;
  }
}
