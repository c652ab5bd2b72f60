/**
 * The keys of TLS session tickets: one sealed memfd that the primary writes and all workers map, so that a client
 * resumes its session whichever worker it gets, after a reload too; an upgrade passes it on. It is never in a file.
 * The newest key encrypts, the others still decrypt: a new one comes every 12 hours, and three are kept.
 *
 * Layout, little-endian (the readers are in native/tls): magic, version, sequence, count as u32, then per key its name,
 * an AES-256 key, an HMAC key, and when it was made (f64, ms since the epoch). The sequence is odd while it is written.
 */
import { randomFillSync } from "node:crypto";
import { fstatSync } from "node:fs";
import { addon } from "./addon.ts";
import { check } from "./errno.ts";

const SIZE = 4_096;
/** "HRTK" */
const MAGIC = 0x4b54_5248;
const VERSION = 1;
const WORD = { magic: 0, version: 1, sequence: 2, count: 3, words: 4 } as const;
const SECRET_BYTES = 16 + 32 + 32;
const KEY_BYTES: number = SECRET_BYTES + Float64Array.BYTES_PER_ELEMENT;
const KEYS_AT: number = WORD.words * Uint32Array.BYTES_PER_ELEMENT;

export const TICKET_KEYS_KEPT = 3;
export const TICKET_KEY_MS: number = 12 * 3_600_000;

export class TicketKeys {
  readonly fd: number;
  readonly #words: Int32Array;
  readonly #memory: DataView;

  private constructor(fd: number) {
    this.fd = fd;
    const memory = addon().memoryMap(fd, SIZE, 0);
    this.#words = new Int32Array(memory, 0, WORD.words);
    this.#memory = new DataView(memory);
  }

  /** `now`: ms since the epoch. */
  static create(now: number): TicketKeys {
    const keys = new TicketKeys(check(addon().memoryCreate("headrace-tickets", SIZE), "memfd_create"));
    keys.#words[WORD.version] = VERSION;
    Atomics.store(keys.#words, WORD.magic, MAGIC);
    keys.rotate(now);
    return keys;
  }

  /** Those that another primary made; undefined when they are another version's. */
  static attach(fd: number): TicketKeys | undefined {
    if (fd < 0 || fstatSync(fd).size !== SIZE) return undefined;
    const keys = new TicketKeys(fd);
    const known = Atomics.load(keys.#words, WORD.magic) === MAGIC && keys.#words[WORD.version] === VERSION;
    // Its writer died in the midst of it, so nothing there can be trusted.
    const whole = (Atomics.load(keys.#words, WORD.sequence) & 1) === 0;
    return known && whole ? keys : undefined;
  }

  /** When each was made, ms since the epoch, the newest first. */
  get ages(): number[] {
    return Array.from({ length: this.#words[WORD.count] ?? 0 }, (_, index) => this.#createdAt(index));
  }

  /** Puts a new key first when the newest is 12 hours old. Returns whether it did. */
  rotate(now: number): boolean {
    const [newest] = this.ages;
    // A clock that was set back would keep a key for as long as it was wrong.
    if (newest !== undefined && now >= newest && now - newest < TICKET_KEY_MS) return false;
    const kept = this.ages.filter((made) => now - made < TICKET_KEYS_KEPT * TICKET_KEY_MS).length;
    const count = Math.min(TICKET_KEYS_KEPT, kept + 1);
    const bytes = new Uint8Array(this.#memory.buffer, KEYS_AT, TICKET_KEYS_KEPT * KEY_BYTES);
    Atomics.add(this.#words, WORD.sequence, 1);
    bytes.copyWithin(KEY_BYTES, 0, (count - 1) * KEY_BYTES);
    randomFillSync(bytes, 0, SECRET_BYTES);
    this.#memory.setFloat64(KEYS_AT + SECRET_BYTES, now, true);
    bytes.fill(0, count * KEY_BYTES);
    this.#words[WORD.count] = count;
    Atomics.add(this.#words, WORD.sequence, 1);
    return true;
  }

  #createdAt(index: number): number {
    return this.#memory.getFloat64(KEYS_AT + index * KEY_BYTES + SECRET_BYTES, true);
  }
}
