/**
 * How published messages get from one worker to the others: a memfd that all workers of a machine share, those of both
 * generations of an upgrade too. Each worker process has a ring of its own, at its column of the admission table, and
 * writes only there; everyone reads everybody's, each with cursors of its own. A writer never waits: it overwrites what
 * is oldest, and a reader that was too slow for that notices, counts a loss and goes on with what is still there: what
 * was written last is never lost. A worker that dies leaves a ring that nobody adds to, until the next holder of its column goes on there.
 *
 * A ring counts its bytes in units, modulo 2^32. `reserved` is ahead of `written` while a record is being written; a
 * reader copies first and then looks whether `reserved` has come round to what it copied. Atomics order the rest.
 * `reserved` never goes back: who finds it ahead, left by one that died while it wrote, fills the gap first.
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

export interface TopicReader {
  /** Whether messages of this topic are heard: others are not copied. */
  wants(topic: string): boolean;
  /** The payload is the reader's own. */
  hear(topic: string, payload: Buffer): void;
}

/** Of one turn: then others have theirs. */
export interface TurnLimit {
  readonly messages: number;
  readonly ms: number;
}

export class TopicRings {
  readonly #fd: number;
  readonly #column: number;
  readonly #header: Int32Array;
  readonly #bell: Int32Array;
  /** Mapped when first used. */
  readonly #rings: (Buffer | undefined)[] = [];
  /** Per column: up to where it was read. */
  readonly #cursors: Int32Array = new Int32Array(ADMISSION_COLUMNS);
  /** Where the next turn begins: a column that fills one is not the first of the next. */
  #first = 0;
  /** How often it was lapped by a writer: at least one message each time. */
  lost = 0;

  /** `column` is this worker's, and nobody else's any more. The descriptor must stay open. */
  constructor(fd: number, column: number) {
    this.#fd = fd;
    this.#column = column;
    const header = addon().memoryMap(fd, HEADER_BYTES, 0);
    this.#header = new Int32Array(header);
    this.#bell = new Int32Array(header, AT.bell * Int32Array.BYTES_PER_ELEMENT, BELL_WORDS);
    this.#mend();
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

  /** What the others have written since the last time, as much as a turn may have. True when there is more. */
  read(reader: TopicReader, { messages, ms }: TurnLimit): boolean {
    const until = performance.now() + ms;
    const first = this.#first;
    let left = messages;
    let more = false;
    for (let step = 0; step < ADMISSION_COLUMNS; step++) {
      const column = (first + step) % ADMISSION_COLUMNS;
      if (column === this.#column) continue;
      const end = this.#load(column, RING.written);
      while (this.#cursors[column] !== end) {
        if (left === 0 || performance.now() >= until) return true;
        left -= 1;
        // The next turn begins behind the last one that was heard.
        this.#first = column + 1;
        if (this.#next(column, end, reader)) continue;
        // Where nothing can be done before the writer goes on, another turn would not either.
        if (this.#catchUp(column)) more = true;
        break;
      }
    }
    return more;
  }

  /** False when it is not there any more. */
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
    const topic = fits && length > 0 ? ring.toString("utf8", from, from + length) : "";
    const wanted = topic !== "" && reader.wants(topic);
    const payload = wanted ? Buffer.from(ring.subarray(from + length, from + length + size)) : undefined;
    // An addition and not a load: what was copied must have been read before it.
    const reserved = Atomics.add(this.#header, wordOf(column, RING.reserved), 0);
    if (!fits || ((reserved - cursor) | 0) > UNITS) return false;
    this.#cursors[column] = (cursor + units) | 0;
    if (payload) reader.hear(topic, payload);
    return true;
  }

  /**
   * To the last record that begins a ring, since records never cross its end. Never back: false when it is there already,
   * and the writer is about to overwrite that, or has died over it.
   */
  #catchUp(column: number): boolean {
    const cursor = this.#cursors[column] as number;
    const begin = (this.#load(column, RING.written) - 1) & ~(UNITS - 1);
    if (((begin - cursor) | 0) <= 0) return false;
    this.#cursors[column] = begin;
    this.lost += 1;
    return true;
  }

  /** What the last holder of the column left half written becomes records that nobody wants. */
  #mend(): void {
    const end = this.#load(this.#column, RING.reserved);
    let at = this.#load(this.#column, RING.written);
    if (((end - at) | 0) <= 0) return;
    const ring = this.#ring(this.#column);
    while (at !== end) {
      const left = Math.min((end - at) | 0, UNITS - (at & (UNITS - 1)));
      const offset = (at & (UNITS - 1)) * UNIT;
      ring.writeUInt32LE(left * UNIT - RECORD.words, offset + RECORD.payload);
      ring.writeUInt32LE(0, offset + RECORD.topic);
      at = (at + left) | 0;
    }
    Atomics.store(this.#header, wordOf(this.#column, RING.written), end);
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
