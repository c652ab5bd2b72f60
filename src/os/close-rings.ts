/**
 * The last connections that ended: one memfd that all workers of a machine share, those of both generations of an
 * upgrade too. Each worker process has a ring at its column of the admission table, writes only there, and never waits;
 * the primary reads them all, so what a worker noted outlives it. An entry costs a worker a few stores and one call.
 *
 * What a column counts only grows; an entry is written before it is counted, and one that may have been overwritten
 * while it was read is left out. A connection's id is its endpoint's prefix, which is noted once as a label, and its
 * number; or, for one that came from another worker, text.
 */
import { fstatSync } from "node:fs";
import { CLOSE_REASONS, type CloseReason } from "../base/reasons.ts";
import { addon } from "./addon.ts";
import { ADMISSION_COLUMNS } from "./admission-table.ts";
import { check } from "./errno.ts";

const VERSION = 1;
const MAGIC = 0x4843_4c01;
/** Words of the header: which memory this is, then per column how many entries, and labels, were ever written. */
const AT = { magic: 0, version: 1, counts: 8 } as const;
const COUNT = { entries: 0, labels: 1, words: 2 } as const;
const HEADER_BYTES = 64 * 1024;

/** Entries of one ring. */
export const RING_ENTRIES = 10_000;
/** An entry: five float64, then bytes. */
const ENTRY = {
  at: 0,
  durationMs: 1,
  received: 2,
  sent: 3,
  serial: 4,
  address: 40,
  port: 56,
  family: 58,
  reason: 59,
  label: 60,
  id: 64,
};
const ENTRY_BYTES = 96;
const ID_BYTES: number = ENTRY_BYTES - ENTRY.id;
const ADDRESS_BYTES = 20;
/** A label: its number, the slot of the worker, then "listener\0prefix". */
const LABELS = 256;
const LABEL = { number: 0, slot: 4, length: 6, text: 8 } as const;
const LABEL_BYTES = 128;
const LABELS_BYTES: number = LABELS * LABEL_BYTES;
const PAGE = 4_096;
const RING_BYTES: number = Math.ceil((LABELS_BYTES + RING_ENTRIES * ENTRY_BYTES) / PAGE) * PAGE;
const SIZE: number = HEADER_BYTES + ADMISSION_COLUMNS * RING_BYTES;

if (SIZE > 2 ** 31 - 1 || AT.counts + ADMISSION_COLUMNS * COUNT.words > HEADER_BYTES / 4) {
  throw new RangeError("closes: the memory is too small for a ring of every worker");
}

/** As it was noted. */
export interface NotedClose {
  readonly id: string;
  /** Slot of the worker. */
  readonly worker: number;
  readonly listener: string;
  readonly host: string;
  readonly port: number;
  readonly reason: CloseReason;
  readonly durationMs: number;
  readonly received: number;
  readonly sent: number;
  /** ms since the epoch. */
  readonly at: number;
}

/** What a worker notes of a connection. */
export interface Closing {
  /** Of `CloseRing.label`. */
  readonly label: number;
  /** Number of the connection in its endpoint, or its whole id. */
  readonly serial: number | string;
  readonly reason: number;
  readonly durationMs: number;
  readonly received: number;
  readonly sent: number;
}

/** Writes 20 bytes: address (IPv4 in its first four), port, family (4, 6 or 0). */
type WriteAddress = (into: Uint8Array) => unknown;

const countOf = (column: number, word: number): number => AT.counts + column * COUNT.words + word;

/** A worker's own ring. */
export class CloseRing {
  readonly #counts: Int32Array;
  readonly #column: number;
  readonly #memory: ArrayBuffer;
  readonly #bytes: Buffer;
  readonly #floats: Float64Array;
  readonly #words: Int32Array;
  readonly #address: Uint8Array = new Uint8Array(ADDRESS_BYTES);

  /** The descriptor may be closed at once. */
  constructor(fd: number, column: number) {
    this.#counts = new Int32Array(addon().memoryMap(fd, HEADER_BYTES, 0));
    this.#column = column;
    this.#memory = addon().memoryMap(fd, RING_BYTES, HEADER_BYTES + column * RING_BYTES);
    this.#bytes = Buffer.from(this.#memory);
    this.#floats = new Float64Array(this.#memory, LABELS_BYTES);
    this.#words = new Int32Array(this.#memory, LABELS_BYTES);
  }

  /** Notes what connections of an endpoint have in common. */
  label(slot: number, listener: string, idPrefix: string): number {
    const index = countOf(this.#column, COUNT.labels);
    const number = Atomics.load(this.#counts, index);
    const at = (number % LABELS) * LABEL_BYTES;
    const length = this.#bytes.write(`${listener}\0${idPrefix}`, at + LABEL.text, LABEL_BYTES - LABEL.text, "latin1");
    this.#bytes.writeUInt16LE(slot, at + LABEL.slot);
    this.#bytes.writeUInt16LE(length, at + LABEL.length);
    this.#bytes.writeInt32LE(number, at + LABEL.number);
    Atomics.store(this.#counts, index, number + 1);
    return number;
  }

  /** Never waits, never throws. */
  note({ label, serial, reason, durationMs, received, sent }: Closing, writeAddress: WriteAddress): void {
    const index = countOf(this.#column, COUNT.entries);
    const count = this.#counts[index] as number;
    const entry = (count >>> 0) % RING_ENTRIES;
    const float = (entry * ENTRY_BYTES) / 8;
    const byte = LABELS_BYTES + entry * ENTRY_BYTES;
    const floats = this.#floats;
    floats[float + ENTRY.at] = Date.now();
    floats[float + ENTRY.durationMs] = durationMs;
    floats[float + ENTRY.received] = received;
    floats[float + ENTRY.sent] = sent;
    writeAddress(this.#address);
    this.#bytes.set(this.#address, byte + ENTRY.address);
    // Behind the address: its last byte is nobody's.
    this.#bytes[byte + ENTRY.reason] = reason;
    this.#words[(entry * ENTRY_BYTES + ENTRY.label) / 4] = label;
    if (typeof serial === "number") {
      floats[float + ENTRY.serial] = serial;
    } else {
      floats[float + ENTRY.serial] = -1;
      this.#bytes.fill(0, byte + ENTRY.id, byte + ENTRY_BYTES);
      this.#bytes.write(serial, byte + ENTRY.id, ID_BYTES, "latin1");
    }
    Atomics.store(this.#counts, index, count + 1);
  }
}

/** All of them, as the primary sees them. */
export class CloseRings {
  readonly fd: number;
  readonly #counts: Int32Array;
  /** Mapped when first read. */
  readonly #rings = new Map<number, Buffer>();

  private constructor(fd: number) {
    this.fd = fd;
    this.#counts = new Int32Array(addon().memoryMap(fd, HEADER_BYTES, 0));
  }

  static create(): CloseRings {
    const rings = new CloseRings(check(addon().memoryCreate("headrace-closes", SIZE), "memfd_create"));
    rings.#counts[AT.version] = VERSION;
    Atomics.store(rings.#counts, AT.magic, MAGIC);
    return rings;
  }

  /** Those of another primary; undefined when they are another version's. */
  static attach(fd: number): CloseRings | undefined {
    if (fd < 0 || fstatSync(fd).size !== SIZE) return undefined;
    const rings = new CloseRings(fd);
    return rings.#counts[AT.magic] === MAGIC && rings.#counts[AT.version] === VERSION ? rings : undefined;
  }

  /** The last `limit`, the newest first. */
  read(limit: number): NotedClose[] {
    const columns: Cursor[] = [];
    for (let column = 0; column < ADMISSION_COLUMNS; column++) {
      const count = this.#count(column);
      if (count > 0) columns.push({ column, bytes: this.#ring(column), at: count - 1 });
    }
    const found: NotedClose[] = [];
    while (found.length < limit) {
      let newest: Cursor | undefined;
      for (const each of columns) {
        if (this.#has(each) && (newest === undefined || closedAt(each) > closedAt(newest))) newest = each;
      }
      if (!newest) break;
      const entry = readEntry(newest.bytes, newest.at % RING_ENTRIES);
      // Its writer goes on meanwhile: what may be half of one and half of another is left out.
      if (this.#has(newest)) found.push(entry);
      newest.at -= 1;
    }
    return found;
  }

  /** Whether an entry is there: not older than the ring, and not the one that is being written over. */
  #has({ column, at }: Cursor): boolean {
    return at >= 0 && at > this.#count(column) - RING_ENTRIES;
  }

  #count(column: number): number {
    return Atomics.load(this.#counts, countOf(column, COUNT.entries)) >>> 0;
  }

  #ring(column: number): Buffer {
    const ring =
      this.#rings.get(column) ??
      Buffer.from(addon().memoryMap(this.fd, RING_BYTES, HEADER_BYTES + column * RING_BYTES));
    this.#rings.set(column, ring);
    return ring;
  }
}

/** Where one column is read, from its newest entry to its oldest. */
interface Cursor {
  readonly column: number;
  readonly bytes: Buffer;
  at: number;
}

function closedAt({ bytes, at }: Cursor): number {
  return bytes.readDoubleLE(LABELS_BYTES + (at % RING_ENTRIES) * ENTRY_BYTES);
}

function readEntry(bytes: Buffer, entry: number): NotedClose {
  const byte = LABELS_BYTES + entry * ENTRY_BYTES;
  const float = (index: number): number => bytes.readDoubleLE(byte + index * 8);
  const { slot, listener, prefix } = readLabel(bytes, bytes.readInt32LE(byte + ENTRY.label));
  const serial = float(ENTRY.serial);
  const text = bytes.toString("latin1", byte + ENTRY.id, byte + ENTRY_BYTES);
  return {
    id: serial < 0 ? text.replaceAll("\0", "") : `${prefix}-${serial.toString(36)}`,
    worker: slot,
    listener,
    ...readAddress(bytes, byte + ENTRY.address),
    reason: CLOSE_REASONS[bytes[byte + ENTRY.reason] ?? 0] ?? "io-error",
    durationMs: float(ENTRY.durationMs),
    received: float(ENTRY.received),
    sent: float(ENTRY.sent),
    at: float(ENTRY.at),
  };
}

/** Labels that have been written over are not known any more. */
function readLabel(bytes: Buffer, number: number): { slot: number; listener: string; prefix: string } {
  const at = (number % LABELS) * LABEL_BYTES;
  if (bytes.readInt32LE(at + LABEL.number) !== number) return { slot: -1, listener: "", prefix: "" };
  const text = bytes.toString("latin1", at + LABEL.text, at + LABEL.text + bytes.readUInt16LE(at + LABEL.length));
  const [listener = "", prefix = ""] = text.split("\0");
  return { slot: bytes.readUInt16LE(at + LABEL.slot), listener, prefix };
}

function readAddress(bytes: Buffer, at: number): { host: string; port: number } {
  const port = bytes.readUInt16BE(at + 16);
  const family = bytes[at + 18];
  if (family === 4) return { host: bytes.subarray(at, at + 4).join("."), port };
  if (family !== 6) return { host: "", port: 0 };
  if (bytes.readBigUInt64BE(at) === 0n && bytes.readUInt32BE(at + 8) === 0xffff) {
    return { host: bytes.subarray(at + 12, at + 16).join("."), port };
  }
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(at + index * 2).toString(16));
  return { host: new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1), port };
}
