/**
 * How published messages get from one worker to the others: a memfd that all workers of a machine share, those of both
 * generations of an upgrade too. Each worker process has a ring of its own, at its column of the admission table, and
 * writes only there; everyone reads everybody's, each with cursors of its own. A writer never waits: it overwrites what
 * is oldest, and a reader that was too slow for that notices, counts a loss and goes on with what is still there: what
 * was written last is never lost. A worker that dies leaves a ring that nobody adds to, until the next holder of its column goes on there.
 *
 * A ring counts its bytes in units, modulo 2^32. `reserved` is ahead of `written` while a record is being written; a
 * reader copies first and then looks whether `reserved` has come round to what it copied. Atomics order the rest.
 */
import { fstatSync } from "node:fs";
import { addon } from "./addon.ts";
import { ADMISSION_COLUMNS } from "./admission-table.ts";
import { check } from "./errno.ts";

const VERSION = 1;
/** Words of the header: the version, the bell (native/addon_bell.c), then WORDS for each ring. */
const AT = { version: 0, bell: 2, rings: 8 } as const;
const BELL_WORDS = 2;
const RING = { written: 0, reserved: 1, words: 2 } as const;
const HEADER_BYTES = 64 * 1024;
const RING_BYTES: number = 1 << 20;
const UNIT = 8;
const UNITS: number = RING_BYTES / UNIT;
const SIZE: number = HEADER_BYTES + ADMISSION_COLUMNS * RING_BYTES;

/** Of a record: bytes of the payload, bytes of the topic. */
const RECORD = { payload: 0, topic: 4, words: 8 } as const;
/** Instead of a payload's size: the rest of the ring is not used. */
const SKIP = 0xffff_ffff;
/** A reader that is not a whole ring behind loses nothing of one message. */
const RECORD_BYTES_MAX: number = RING_BYTES / 4;

/** A message and its topic may have so many bytes together. */
export const TOPIC_MESSAGE_MAX: number = RECORD_BYTES_MAX - RECORD.words;

// The addon takes sizes and offsets in 32 bits.
if (SIZE > 2 ** 31 - 1 || AT.rings + ADMISSION_COLUMNS * RING.words > HEADER_BYTES / Int32Array.BYTES_PER_ELEMENT) {
  throw new RangeError("topics: the memory is too small for a ring of every worker");
}

/** The caller's descriptor. */
export function createTopicMemory(): number {
  const fd = check(addon().memoryCreate("headrace-topics", SIZE), "memfd_create");
  Atomics.store(new Int32Array(addon().memoryMap(fd, HEADER_BYTES, 0)), AT.version, VERSION);
  return fd;
}

/** Whether it is what `createTopicMemory` of this version made. */
export function isTopicMemory(fd: number): boolean {
  if (fd < 0 || fstatSync(fd).size !== SIZE) return false;
  return Atomics.load(new Int32Array(addon().memoryMap(fd, HEADER_BYTES, 0)), AT.version) === VERSION;
}

const wordOf = (column: number, word: number): number => AT.rings + column * RING.words + word;
const recordUnits = (topic: number, payload: number): number => Math.ceil((RECORD.words + topic + payload) / UNIT);

/** What a reader hears; the payload is its own. */
export type TopicReader = (topic: string, payload: Buffer) => void;

export class TopicRings {
  readonly #fd: number;
  readonly #column: number;
  readonly #header: Int32Array;
  readonly #bell: Int32Array;
  /** Mapped when first used. */
  readonly #rings: (Buffer | undefined)[] = [];
  /** Per column: up to where it was read. */
  readonly #cursors: Int32Array = new Int32Array(ADMISSION_COLUMNS);
  /** Messages that were overwritten before they were read: at least one each. */
  lost = 0;

  /** `column` is this worker's. The descriptor must stay open. */
  constructor(fd: number, column: number) {
    this.#fd = fd;
    this.#column = column;
    const header = addon().memoryMap(fd, HEADER_BYTES, 0);
    this.#header = new Int32Array(header);
    this.#bell = new Int32Array(header, AT.bell * Int32Array.BYTES_PER_ELEMENT, BELL_WORDS);
    this.skip();
  }

  /** What was published up to now is not heard. */
  skip(): void {
    for (let at = 0; at < ADMISSION_COLUMNS; at++) this.#cursors[at] = this.#load(at, RING.written);
  }

  /** Has `wake` called when others have rung. Call `read` at once, and whenever it is called. */
  listen(wake: () => void): void {
    const bell = check(
      addon().bellListen(this.#fd, AT.bell, () => {
        addon().bellArm(bell);
        wake();
      }),
      "listening to topics",
    );
    addon().bellArm(bell);
  }

  /** Wakes the others: once for all that was written before. */
  ring(): void {
    addon().bellRing(this.#bell);
  }

  /** Adds a record of at most TOPIC_MESSAGE_MAX bytes to the own ring. Never waits. */
  write(topic: Uint8Array, payload: Uint8Array): void {
    const ring = this.#ring(this.#column);
    const units = recordUnits(topic.length, payload.length);
    let at = this.#load(this.#column, RING.written);
    const left = UNITS - (at & (UNITS - 1));
    const skipped = left < units ? left : 0;
    const end = (at + skipped + units) | 0;
    // An exchange and not a store: what is written below must not be seen before it.
    Atomics.exchange(this.#header, wordOf(this.#column, RING.reserved), end);
    if (skipped > 0) ring.writeUInt32LE(SKIP, (at & (UNITS - 1)) * UNIT + RECORD.payload);
    at = (at + skipped) | 0;
    const offset = (at & (UNITS - 1)) * UNIT;
    ring.writeUInt32LE(payload.length, offset + RECORD.payload);
    ring.writeUInt32LE(topic.length, offset + RECORD.topic);
    ring.set(topic, offset + RECORD.words);
    ring.set(payload, offset + RECORD.words + topic.length);
    Atomics.store(this.#header, wordOf(this.#column, RING.written), end);
  }

  /** What the others have written since the last time, but no more than `most` messages. True when there is more. */
  read(reader: TopicReader, most: number): boolean {
    let count = 0;
    let more = false;
    for (let column = 0; column < ADMISSION_COLUMNS; column++) {
      if (column === this.#column) continue;
      const end = this.#load(column, RING.written);
      while (this.#cursors[column] !== end) {
        if (count === most) return true;
        count += 1;
        if (this.#next(column, end, reader)) continue;
        more = true;
        break;
      }
    }
    return more;
  }

  /** False when it was lost, and the cursor is ahead of `end` perhaps. */
  #next(column: number, end: number, reader: TopicReader): boolean {
    const cursor = this.#cursors[column] as number;
    const index = cursor & (UNITS - 1);
    const offset = index * UNIT;
    const ring = this.#ring(column);
    const size = ring.readUInt32LE(offset + RECORD.payload);
    const length = size === SKIP ? 0 : ring.readUInt32LE(offset + RECORD.topic);
    const units = size === SKIP ? UNITS - index : recordUnits(length, size);
    // What is being overwritten may say anything: only what fits is copied, and only what was whole is believed.
    const fits = units <= UNITS - index && units <= ((end - cursor) | 0);
    const from = offset + RECORD.words;
    const copy = fits && size !== SKIP ? Buffer.from(ring.subarray(from, from + length + size)) : undefined;
    // An addition and not a load: what was copied must have been read before it.
    const reserved = Atomics.add(this.#header, wordOf(column, RING.reserved), 0);
    if (!fits || ((reserved - cursor) | 0) > UNITS) {
      this.lost += 1;
      this.#catchUp(column, cursor);
      return false;
    }
    this.#cursors[column] = (cursor + units) | 0;
    if (copy) reader(copy.toString("utf8", 0, length), copy.subarray(length));
    return true;
  }

  /** To the last record that begins a ring, since records never cross its end. Never back. */
  #catchUp(column: number, cursor: number): void {
    const begin = (this.#load(column, RING.written) - 1) & ~(UNITS - 1);
    if (((begin - cursor) | 0) > 0) this.#cursors[column] = begin;
  }

  #load(column: number, word: number): number {
    return Atomics.load(this.#header, wordOf(column, word));
  }

  #ring(column: number): Buffer {
    let ring = this.#rings[column];
    if (!ring) {
      ring = Buffer.from(addon().memoryMap(this.#fd, RING_BYTES, HEADER_BYTES + column * RING_BYTES));
      this.#rings[column] = ring;
    }
    return ring;
  }
}
