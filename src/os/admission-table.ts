/**
 * How many connections all workers hold together, and how many each client address has: a memfd of atomic counters that
 * the engines count in (native/admission.h and address.h say how, and have the same layout; a test compares them). An
 * upgrade passes it on: its two primaries share it, each with one half of the columns, a column per worker process. Row
 * 0 is the server's total, row 1 + n that of listener row n; behind the rows stands the table of addresses, which only
 * engines read. Pages that nobody touches cost nothing. Beside it goes an eventfd, by which workers that wait for a
 * place hear of one.
 *
 * A primary raises the high-water mark of its half before it starts a worker there, and clears the column of one that
 * has died, so that nothing leaks.
 */
import { randomFillSync } from "node:crypto";
import { fstatSync, writeSync } from "node:fs";
import { addon } from "./addon.ts";
import { check } from "./errno.ts";
import { ROWS, SEATS } from "./scoreboard.ts";

const VERSION = 3;
const HALVES = 2;

/** Int32 words of the header. */
export const ADMISSION_HEADER = {
  version: 0,
  highWater: 1,
  highWater1: 2,
  moves: 3,
  waiting: 4,
  hashKey: 5,
  words: 16,
} as const;
export const ADMISSION_COLUMNS: number = HALVES * SEATS;
export const ADMISSION_ROWS: number = 1 + ROWS;

/** Word at which the stamps of those that wait begin, two words for each counter; only engines use them. */
export const ADMISSION_STAMPS: number = ADMISSION_HEADER.words + ADMISSION_ROWS * ADMISSION_COLUMNS;
const WORDS = ADMISSION_STAMPS + 2 * ADMISSION_ROWS * ADMISSION_COLUMNS;
/** Of what is mapped here. */
const ROWS_SIZE = WORDS * Int32Array.BYTES_PER_ELEMENT;
const HASH_KEY_WORDS = 4;

/** Entries of the table of addresses, and where it begins. An entry is a key, a clock, and a count in each column. */
export const ADDRESSES = { offset: 1_310_720, entries: 262_144, ways: 16, columnBytes: 1_048_576 } as const;
const ENTRY_BYTES = 2 * BigUint64Array.BYTES_PER_ELEMENT;
/** Of the whole memory. */
const SIZE = ADDRESSES.offset + ADDRESSES.entries * ENTRY_BYTES + ADMISSION_COLUMNS * ADDRESSES.columnBytes;

/** What is written into the eventfd. */
const WAKE: BigUint64Array = BigUint64Array.of(1n);

/** One primary's share of the columns. */
export type Half = 0 | 1;

/** That of a generation: its neighbours have the other. */
export function halfOf(generation: number): Half {
  return generation % HALVES === 0 ? 0 : 1;
}

/** Where the worker of that generation at that seat counts. */
export function admissionColumn(generation: number, seat: number): number {
  return halfOf(generation) * SEATS + seat;
}

export class AdmissionTable {
  readonly fd: number;
  readonly wakeFd: number;
  /** What `Engine.limit` takes. */
  readonly words: Int32Array;

  private constructor(fd: number, wakeFd: number) {
    this.fd = fd;
    this.wakeFd = wakeFd;
    this.words = new Int32Array(addon().memoryMap(fd, ROWS_SIZE, 0));
  }

  static create(): AdmissionTable {
    const memory = check(addon().memoryCreate("headrace-admission", SIZE), "memfd_create");
    const table = new AdmissionTable(memory, check(addon().eventCreate(), "eventfd"));
    const { version, hashKey } = ADMISSION_HEADER;
    randomFillSync(table.words, hashKey, HASH_KEY_WORDS);
    Atomics.store(table.words, version, VERSION);
    return table;
  }

  /** Maps the table that another process made; undefined when it has another layout. */
  static attach(fd: number, wakeFd: number): AdmissionTable | undefined {
    // Reading past the end of a shorter file would be a SIGBUS.
    if (fstatSync(fd).size !== SIZE) return undefined;
    const table = new AdmissionTable(fd, wakeFd);
    return Atomics.load(table.words, ADMISSION_HEADER.version) === VERSION ? table : undefined;
  }

  /** A generation begins: its half is empty. Its last user, two generations ago, has gone. */
  claimHalf(generation: number): void {
    const half = halfOf(generation);
    this.clearHalf(half);
    this.setHighWater(half, 0);
  }

  /** Seats of `half` that are summed. Raised before a worker starts above; lowered once none is left there. */
  setHighWater(half: Half, seats: number): void {
    if (!(seats >= 0 && seats <= SEATS)) throw new RangeError(`admission: no such number of seats: ${seats}`);
    Atomics.store(this.words, ADMISSION_HEADER.highWater + half, seats);
  }

  /** Forgets the connections of a worker that has died. */
  clearColumn(column: number): void {
    if (!(column >= 0 && column < ADMISSION_COLUMNS)) throw new RangeError(`admission: no column ${column}`);
    this.#clear(column, 1);
  }

  /** Forgets the connections of a generation that has gone. */
  clearHalf(half: Half): void {
    this.#clear(half * SEATS, SEATS);
  }

  #clear(first: number, columns: number): void {
    // Some may live on in another worker, which has counted them: whoever is summing now has to start again.
    Atomics.add(this.words, ADMISSION_HEADER.moves, 1);
    check(addon().addressClear(this.fd, first, columns), "clearing the admission table");
    for (let row = 0; row < ADMISSION_ROWS; row++) {
      for (let column = first; column < first + columns; column++) Atomics.store(this.words, this.#at(row, column), 0);
    }
    if (Atomics.exchange(this.words, ADMISSION_HEADER.waiting, 0) !== 0) writeSync(this.wakeFd, WAKE);
  }

  /** Connections counted now, in all workers of both generations: row 0 in all, row 1 + n of listener row n. */
  count(row: number): number {
    return this.countHalf(0, row) + this.countHalf(1, row);
  }

  /** The same in the workers of one generation. */
  countHalf(half: Half, row: number): number {
    const seats = Atomics.load(this.words, ADMISSION_HEADER.highWater + half);
    let sum = 0;
    for (let seat = 0; seat < seats; seat++) sum += Atomics.load(this.words, this.#at(row, half * SEATS + seat));
    return sum;
  }

  #at(row: number, column: number): number {
    return ADMISSION_HEADER.words + row * ADMISSION_COLUMNS + column;
  }
}
