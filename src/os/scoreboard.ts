/**
 * The scoreboard: one memfd that a primary makes and its workers map. Each worker process has a seat and writes
 * only that seat's block, with plain stores; the primary reads them all. It outlives its writers, so a dead
 * worker's figures stay readable. In front stands, per slot, which seat owns it: written by the primary alone, read
 * by every worker to see whether a sibling's slot is served (src/worker/siblings.ts).
 *
 * There is room for every seat and listener that can ever be; pages that nobody touches cost nothing. So only rows
 * that are in use may be read. All figures are float64: exact up to 2^53, one store each.
 */
import { DURATION_BUCKETS } from "../base/buckets.ts";
import { CLOSE_REASONS } from "../base/reasons.ts";
import { addon } from "./addon.ts";
import { check } from "./errno.ts";

/** Head of a seat's block. The engine itself writes `clock` and the totals after it (native/engine.h: TOTAL_…). */
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
  "bytesHeldOut",
  // Of `acceptErrors`, in the order of ACCEPT_ERRORS.
  "acceptEmfile",
  "acceptEnfile",
  "acceptEnobufs",
  "acceptEnomem",
  "acceptEconnaborted",
  "acceptOther",
  // Seconds of rounds: in the kernel for what comes in, in JavaScript, and in the kernel for what goes out.
  "receiveSeconds",
  "scriptSeconds",
  "sendSeconds",
  // Of `rejected`, in the order of REJECT_REASONS.
  "rejectedConnections",
  "rejectedListener",
  "rejectedAddress",
  "rejectedRate",
  "rejectedDenied",
  "rejectedDescriptors",
  // Ours, and not the engine's.
  "rejectedHandshakes",
  "pid",
  "startedAt",
  "accepting",
  "bytesHeldIn",
  "published",
  "dropped",
  "waiting",
  // Once a second (src/worker/vitals.ts). Of `scriptSeconds`: the two parts of it.
  "decodeSeconds",
  "serviceSeconds",
  // Seconds, of the last second; the longest of the last minute.
  "loopDelayMean",
  "loopDelayP99",
  "loopDelayMax",
  // In the order of GC_KINDS: how many, then how many seconds.
  "gcMinor",
  "gcMajor",
  "gcIncremental",
  "gcWeakcb",
  "gcMinorSeconds",
  "gcMajorSeconds",
  "gcIncrementalSeconds",
  "gcWeakcbSeconds",
  "openFds",
  "heapBytes",
  // Age of the oldest request in flight, seconds; 0: there is none.
  "oldestSeconds",
  "logDropped",
] as const;

/** Per listener, after the head; the close reasons follow, then DATAGRAM_FIELDS, then the buckets of durations. */
export const LISTENER_FIELDS = [
  "active",
  "opened",
  "requests",
  "inFlight",
  "shed",
  // Accepted, and not served yet (src/connection/preface.ts).
  "prefaces",
  // Of TLS: those that came to an end, and the resumed among them.
  "handshakes",
  "resumed",
  // Of requests: not done in time, and withdrawn by their clients.
  "late",
  "cancelled",
  // Whether or not a preface follows; those that came from another worker, or went to one, apart.
  "accepted",
  "movedIn",
  "movedOut",
  // Of requests that are over, seconds. How many they are stands in the buckets.
  "durationSum",
] as const;

/**
 * Of a listener for datagrams, after the close reasons. The engine writes the first of them (native/datagram.h:
 * DATAGRAM_…), the worker the others.
 */
export const DATAGRAM_FIELDS = [
  /** Handed to the service. */
  "received",
  /** Taken by the kernel. */
  "sent",
  /** Arrived and longer than `limits.datagram`. */
  "truncated",
  /** From an address that `admission` does not let in. */
  "denied",
  /** From an address that sends faster than `limits.datagramRate`. */
  "limited",
  /** Not taken by the kernel at first, for want of room. */
  "retried",
  /** Nor at the second attempt. */
  "dropped",
  /** Refused by the kernel for another reason, or late: no socket is left. */
  "failed",
  /** To be sent and longer than `limits.datagram`. */
  "oversized",
  /** To be sent to a source that is not verified, beyond what it may get. */
  "unverified",
  /** Handlers that failed, or took longer than `timeouts.request`. */
  "errors",
] as const;
export type DatagramField = (typeof DATAGRAM_FIELDS)[number];

/** Index of the first of the counters by REJECT_REASONS. */
export const WORKER_REJECTED: number = WORKER_FIELDS.indexOf("rejectedConnections");
/** The same, by ACCEPT_ERRORS. */
export const WORKER_ACCEPT_ERRORS: number = WORKER_FIELDS.indexOf("acceptEmfile");
/** The same, by GC_KINDS: of the counts, and of the seconds. */
export const WORKER_GC: number = WORKER_FIELDS.indexOf("gcMinor");
export const WORKER_GC_SECONDS: number = WORKER_FIELDS.indexOf("gcMinorSeconds");

export type WorkerField = (typeof WORKER_FIELDS)[number];
export type ListenerField = (typeof LISTENER_FIELDS)[number];

/** Slots at most: the largest number of workers. */
export const SLOTS_MAX = 256;
/** Worker processes of one primary at most: every slot's, those being replaced, and those that still drain. */
export const SEATS: number = 3 * SLOTS_MAX;
/** Listeners at most; a listener's place in every block is its row. */
export const ROWS = 64;

/** Cells of a block's head, and of each of its rows. */
export const HEAD_CELLS = 64;
export const ROW_CELLS = 96;
export const LISTENER_CLOSED: number = LISTENER_FIELDS.length;
export const LISTENER_DATAGRAMS: number = LISTENER_CLOSED + CLOSE_REASONS.length;
/** DURATION_BUCKETS of them. */
export const LISTENER_DURATIONS: number = LISTENER_DATAGRAMS + DATAGRAM_FIELDS.length;
const BYTES = Float64Array.BYTES_PER_ELEMENT;
const OWNERS_BYTES = SLOTS_MAX * Int32Array.BYTES_PER_ELEMENT;
const BLOCK_BYTES = (HEAD_CELLS + ROWS * ROW_CELLS) * BYTES;
const SIZE = OWNERS_BYTES + SEATS * BLOCK_BYTES;

/** In `owners`: nobody. */
export const NO_SEAT = -1;

if (WORKER_FIELDS.length > HEAD_CELLS || LISTENER_DURATIONS + DURATION_BUCKETS > ROW_CELLS) {
  throw new RangeError("scoreboard: a block is too small for its fields");
}

/** One worker's figures. */
export class WorkerBlock {
  readonly head: Float64Array;
  readonly #memory: ArrayBuffer;
  readonly #offset: number;
  readonly #rows = new Map<number, Float64Array>();

  constructor(memory: ArrayBuffer, offset: number) {
    this.head = new Float64Array(memory, offset, HEAD_CELLS);
    this.#memory = memory;
    this.#offset = offset;
  }

  get(field: WorkerField): number {
    return this.head[WORKER_FIELDS.indexOf(field)] ?? 0;
  }

  set(field: WorkerField, value: number): void {
    this.head[WORKER_FIELDS.indexOf(field)] = value;
  }

  /** A listener's row: LISTENER_FIELDS, and from LISTENER_CLOSED, _DATAGRAMS and _DURATIONS on what these say. */
  row(index: number): Float64Array {
    if (!(index >= 0 && index < ROWS)) throw new RangeError(`scoreboard: no row ${index}`);
    let row = this.#rows.get(index);
    if (!row) {
      row = new Float64Array(this.#memory, this.#offset + (HEAD_CELLS + index * ROW_CELLS) * BYTES, ROW_CELLS);
      this.#rows.set(index, row);
    }
    return row;
  }

  /** Sum of `field` over `rows`. */
  sum(field: ListenerField, rows: Iterable<number>): number {
    const index = LISTENER_FIELDS.indexOf(field);
    let total = 0;
    for (const row of rows) total += this.row(row)[index] ?? 0;
    return total;
  }

  /** Zeroes the head and `rows` for the seat's next holder. */
  clear(rows: Iterable<number>): void {
    this.head.fill(0);
    for (const row of rows) this.row(row).fill(0);
  }
}

export class Scoreboard {
  readonly fd: number;
  /** Per slot: the seat that owns it, or NO_SEAT. */
  readonly owners: Int32Array;
  readonly #memory: ArrayBuffer;
  readonly #blocks = new Map<number, WorkerBlock>();

  private constructor(fd: number, memory: ArrayBuffer) {
    this.fd = fd;
    this.#memory = memory;
    this.owners = new Int32Array(memory, 0, SLOTS_MAX);
  }

  /** Makes the memory. The descriptor is passed to each worker at fork. */
  static create(): Scoreboard {
    const fd = check(addon().memoryCreate("headrace-scoreboard", SIZE), "memfd_create");
    const scoreboard = new Scoreboard(fd, addon().memoryMap(fd, SIZE, 0));
    scoreboard.owners.fill(NO_SEAT);
    return scoreboard;
  }

  /** Maps the memory that `create` made, in another process. */
  static attach(fd: number): Scoreboard {
    return new Scoreboard(fd, addon().memoryMap(fd, SIZE, 0));
  }

  block(seat: number): WorkerBlock {
    if (!(seat >= 0 && seat < SEATS)) throw new RangeError(`scoreboard: no seat ${seat}`);
    let block = this.#blocks.get(seat);
    if (!block) {
      block = new WorkerBlock(this.#memory, OWNERS_BYTES + seat * BLOCK_BYTES);
      this.#blocks.set(seat, block);
    }
    return block;
  }
}
