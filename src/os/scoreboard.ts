/**
 * The scoreboard: one memfd that the primary makes and every worker maps. Each worker writes only its own
 * block, with plain stores; the primary reads them all. It outlives its writers, so a dead worker's figures
 * stay readable. After the blocks stands the admission table (Int32, atomic), row 0 for the server and one
 * row per listener, a column per worker: the primary clears the column of a dead worker.
 *
 * All figures are float64: exact up to 2^53, one store each.
 */
import { CLOSE_REASONS } from "../base/reasons.ts";
import { addon } from "./addon.ts";
import { check } from "./errno.ts";

/** Head of a worker's block. The engine itself writes `clock` and the totals after it (native/engine.h: TOTAL_…). */
export const WORKER_FIELDS = [
  "clock",
  "bytesReceived",
  "bytesSent",
  "accepted",
  "rejected",
  "acceptErrors",
  "rounds",
  "sends",
  "receives",
  "open",
  "pid",
  "startedAt",
] as const;

/** Per listener, after the head; the close reasons follow in their order. */
export const LISTENER_FIELDS = ["active", "opened", "requests", "inFlight"] as const;

export type WorkerField = (typeof WORKER_FIELDS)[number];
export type ListenerField = (typeof LISTENER_FIELDS)[number];

const HEAD = 32;
const ROW = 64;
export const LISTENER_CLOSED: number = LISTENER_FIELDS.length;
const BYTES = Float64Array.BYTES_PER_ELEMENT;

if (WORKER_FIELDS.length > HEAD || LISTENER_CLOSED + CLOSE_REASONS.length > ROW) {
  throw new RangeError("scoreboard: a block is too small for its fields");
}

export interface ScoreboardShape {
  readonly workers: number;
  readonly listeners: number;
}

/** One worker's figures. */
export class WorkerBlock {
  readonly head: Float64Array;
  readonly #rows: Float64Array[];

  constructor(memory: ArrayBuffer, offset: number, listeners: number) {
    this.head = new Float64Array(memory, offset, HEAD);
    this.#rows = Array.from(
      { length: listeners },
      (_, index) => new Float64Array(memory, offset + (HEAD + index * ROW) * BYTES, ROW),
    );
  }

  get(field: WorkerField): number {
    return this.head[WORKER_FIELDS.indexOf(field)] ?? 0;
  }

  set(field: WorkerField, value: number): void {
    this.head[WORKER_FIELDS.indexOf(field)] = value;
  }

  /** A listener's row: LISTENER_FIELDS, then a counter per close reason from LISTENER_CLOSED on. */
  row(listener: number): Float64Array {
    const row = this.#rows[listener];
    if (!row) throw new RangeError(`scoreboard: no listener ${listener}`);
    return row;
  }

  /** Sum of `field` over the listeners. */
  sum(field: ListenerField): number {
    const index = LISTENER_FIELDS.indexOf(field);
    return this.#rows.reduce((total, row) => total + (row[index] ?? 0), 0);
  }

  /** Zeroes the block for the worker's successor. */
  clear(): void {
    this.head.fill(0);
    for (const row of this.#rows) row.fill(0);
  }
}

export class Scoreboard {
  readonly shape: ScoreboardShape;
  readonly fd: number;
  /** Row-major: 1 + listeners rows of `workers` columns. */
  readonly admission: Int32Array;
  readonly #blocks: WorkerBlock[];

  private constructor(shape: ScoreboardShape, fd: number, memory: ArrayBuffer) {
    this.shape = shape;
    this.fd = fd;
    const block = (HEAD + shape.listeners * ROW) * BYTES;
    this.#blocks = Array.from(
      { length: shape.workers },
      (_, index) => new WorkerBlock(memory, index * block, shape.listeners),
    );
    this.admission = new Int32Array(memory, shape.workers * block, (1 + shape.listeners) * shape.workers);
  }

  static #size(shape: ScoreboardShape): number {
    const words = shape.workers * (HEAD + shape.listeners * ROW);
    return words * BYTES + (1 + shape.listeners) * shape.workers * Int32Array.BYTES_PER_ELEMENT;
  }

  /** Makes the memory. The descriptor is passed to each worker at fork. */
  static create(shape: ScoreboardShape): Scoreboard {
    const size = Scoreboard.#size(shape);
    const fd = check(addon().memoryCreate("headrace-scoreboard", size), "memfd_create");
    return new Scoreboard(shape, fd, addon().memoryMap(fd, size));
  }

  /** Maps the memory that `create` made, in another process. */
  static attach(shape: ScoreboardShape, fd: number): Scoreboard {
    return new Scoreboard(shape, fd, addon().memoryMap(fd, Scoreboard.#size(shape)));
  }

  block(worker: number): WorkerBlock {
    const block = this.#blocks[worker];
    if (!block) throw new RangeError(`scoreboard: no worker ${worker}`);
    return block;
  }

  /** Forgets a dead worker's connections, so that a crash leaks no admission. */
  clearColumn(worker: number): void {
    for (let row = 0; row <= this.shape.listeners; row++) {
      Atomics.store(this.admission, row * this.shape.workers + worker, 0);
    }
  }
}
