/**
 * What stands where in the memory that engine and JavaScript share. The same numbers as native/engine.h;
 * a test compares them.
 */

/** Control words. */
export const HEADER = { outputRecords: 0, outputBytes: 1, open: 2, flushes: 3, waiting: 4, words: 5 } as const;

/** Input records: kind, slot, a, b. */
export const INPUT = {
  data: 1,
  accept: 2,
  end: 3,
  error: 4,
  connected: 5,
  writable: 6,
  blocked: 7,
  acceptError: 8,
  secured: 9,
  datagram: 10,
  words: 4,
} as const;

/** Output records: kind, slot, generation, a, b. */
export const OUTPUT = {
  send: 1,
  sendAlone: 2,
  close: 3,
  reset: 4,
  pause: 5,
  resume: 6,
  finish: 7,
  notify: 8,
  datagram: 9,
  words: 5,
} as const;

/** Per-slot counters. */
export const COUNTER = { received: 0, sent: 1, receivedAt: 2, progressAt: 3, words: 4 } as const;

/** A listener's rule for its clients (native/address.h). */
export const RULE = {
  connections: 0,
  intervalNs: 1,
  burstNs: 2,
  space: 3,
  prefix: 4,
  onLimit: 5,
  namedLater: 6,
  words: 7,
} as const;

/** In front of each datagram in the arenas (native/datagram.h: datagram_end), in 32-bit words. */
export const END = {
  address: 0,
  scope: 4,
  /** The lower half is the port, the upper one the listener. */
  port: 5,
  source: 6,
  generation: 7,
  local: 8,
  words: 16,
} as const;
export const END_BYTES: number = END.words * Int32Array.BYTES_PER_ELEMENT;

/** Of each entry of the sources (native/source.h). */
export const SOURCE = {
  credit: 0,
  generation: 1,
  /** Engine clock, ms, modulo 2^32: when it last sent, or was verified. */
  heard: 2,
  words: 3,
} as const;
export const SOURCE_ENTRIES = 65_536;
/** In place of a credit: anything may be sent. */
export const SOURCE_VERIFIED = 2_147_483_647;
/** Who is verified and silent for longer is so no more, ms. */
export const SOURCE_SILENT_MS = 300_000;
/** In place of an entry: none. */
export const SOURCE_NONE = -1;
/** Bytes of a datagram, at most. */
export const DATAGRAM_MOST = 65_507;
/** Datagrams that the kernel did not take at first and that wait for another attempt, at most. */
export const DATAGRAMS_WAITING = 1_024;

/** In place of an entry of the admission table: the connection holds no place; it holds one, but no address is counted. */
export const ENTRY = { notCounted: -2, none: -1 } as const;

/** What `Engine.peek` finds (native/engine.h). */
export const PEEKED = { quiet: 0, bytes: 1, end: 2 } as const;

/** Index of the clock in the totals; the rest is WORKER_FIELDS of src/os/scoreboard.ts. */
export const TOTAL_CLOCK = 0;
/** Index of the size of all buffers of unsent bytes. */
export const TOTAL_BYTES_HELD_OUT = 10;
/** Number of totals the engine writes. */
export const TOTALS = 26;

/** Bytes that arrive in one round, at most; a connection's share of them is 64 KiB (RECEIVE_SHARE). */
export const INPUT_BYTES: number = 1 << 20;
/** Bytes of replies collected before they are flushed. A larger message goes past the arena. */
export const OUTPUT_BYTES: number = 1 << 20;
export const INPUT_RECORDS = 4_096;
export const OUTPUT_RECORDS = 4_096;

/** How often the engine's clock is advanced when nothing else happens, ms. */
export const TICK_MS = 50;
