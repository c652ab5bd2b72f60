/**
 * Datagrams, as TypeScript sees them in the engine: who hears of those that arrive, and how others leave. Both stand in
 * the arenas with their other end in front (END of layout.ts), so that an answer is its header copied and bytes behind
 * it. Nothing is made for a datagram here.
 */
import { addon, type EngineHandle, type EngineMemory } from "../os/addon.ts";
import { check } from "../os/errno.ts";
import {
  END,
  END_BYTES,
  HEADER,
  OUTPUT,
  OUTPUT_BYTES,
  OUTPUT_RECORDS,
  SOURCE,
  SOURCE_ENTRIES,
  SOURCE_NONE,
} from "./layout.ts";

/** What a listener hears. */
export interface Receiver {
  /** `input[at, at + length)` arrived, from the end in front of it; the memory is reused when the round is over. */
  onDatagram(at: number, length: number): void;
}

export interface DatagramRule {
  /** Bytes of one datagram that may arrive. */
  readonly mostBytes: number;
  /** Bytes that may go to a source that is not verified, for each that came from it; 0: any number. */
  readonly factor: number;
  /** Where its datagrams are counted: DATAGRAM_FIELDS of src/os/scoreboard.ts. */
  readonly counters: Float64Array;
}

/** What it needs of the engine. */
interface Host {
  flush(): void;
  /** Has this many input records read. */
  read(count: number): void;
  reading(): boolean;
}

const WORD_BYTES = Int32Array.BYTES_PER_ELEMENT;
/** The end of a datagram begins at a multiple of this. */
const ALIGNMENT = 8;
/** 64 datagrams each: more than the largest usual queue holds, and an end for one that never does. */
const QUEUE_TURNS = 1_024;

function wordsOf(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / WORD_BYTES));
}

export class Datagrams {
  /** By listener. */
  readonly receivers: (Receiver | undefined)[] = [];
  readonly input: Buffer;
  readonly inputWords: Int32Array;
  readonly output: Buffer;
  readonly outputWords: Int32Array;
  /** SOURCE of each entry. Empty before the first rule. */
  sources: Int32Array = new Int32Array(0);
  readonly #handle: EngineHandle;
  readonly #memory: EngineMemory;
  readonly #host: Host;
  readonly #sending = new Set<number>();
  #closed = false;

  constructor(handle: EngineHandle, memory: EngineMemory, host: Host) {
    this.#handle = handle;
    this.#memory = memory;
    this.#host = host;
    this.input = memory.input as Buffer;
    this.inputWords = wordsOf(memory.input);
    this.output = memory.output as Buffer;
    this.outputWords = wordsOf(memory.output);
  }

  /** Datagrams that the kernel did not take at first. */
  get waiting(): number {
    return this.#memory.header[HEADER.waiting] as number;
  }

  /** How `listener` (0 to 63) treats datagrams from now on. */
  rule(listener: number, { mostBytes, factor, counters }: DatagramRule): void {
    if (this.sources.length === 0) this.sources = new Int32Array(SOURCE_ENTRIES * SOURCE.words);
    this.#memory.pinned.add(this.sources).add(counters);
    const result = addon().engineDatagrams(this.#handle, listener, mostBytes, factor, counters, this.sources);
    check(result, "datagrams");
  }

  /** Receives from `fd`, which stays the caller's, as watch `watch` (0 to 16383): a listener may have several. */
  receive(watch: number, listener: number, fd: number, receiver: Receiver): void {
    check(addon().engineReceive(this.#handle, watch, listener, fd), "receiving datagrams");
    this.receivers[listener] = receiver;
  }

  /** Receives no more there; with `queued`, first what waits, but not inside a round. Idempotent. */
  stop(watch: number, { queued }: { readonly queued: boolean }): void {
    for (let turn = 0; queued && !this.#host.reading() && turn < QUEUE_TURNS; turn++) {
      const count = addon().engineReceiveQueued(this.#handle, watch);
      if (count === 0) break;
      this.#host.read(count);
      this.#host.flush();
    }
    addon().engineReceiveStop(this.#handle, watch);
  }

  /** `listener` sends by a duplicate of `fd` from now on; -1: nothing any more. */
  sendBy(listener: number, fd: number): void {
    if (this.#closed) return;
    this.#host.flush();
    check(addon().engineSender(this.#handle, listener, fd), "sending datagrams");
    if (fd < 0) this.#sending.delete(listener);
    else this.#sending.add(listener);
  }

  /** Whether `listener` has something to send by. */
  sends(listener: number): boolean {
    return this.#sending.has(listener);
  }

  /** Offset in `output` where an end and `size` bytes behind it may be written. */
  reserve(size: number): number {
    const header = this.#memory.header;
    const at = (((header[HEADER.outputBytes] as number) + ALIGNMENT - 1) / ALIGNMENT) | 0;
    const full = (header[HEADER.outputRecords] as number) >= OUTPUT_RECORDS;
    if (!full && at * ALIGNMENT + END_BYTES + size <= OUTPUT_BYTES) return at * ALIGNMENT;
    this.#host.flush();
    return 0;
  }

  /** Sends what was written at `at`, as reserved. */
  submit(listener: number, at: number, size: number): void {
    const { header, outputRecords } = this.#memory;
    const count = header[HEADER.outputRecords] as number;
    const index = count * OUTPUT.words;
    outputRecords[index] = OUTPUT.datagram;
    outputRecords[index + 1] = listener;
    outputRecords[index + 2] = 0;
    outputRecords[index + 3] = at;
    outputRecords[index + 4] = size;
    header[HEADER.outputBytes] = at + END_BYTES + size;
    header[HEADER.outputRecords] = count + 1;
  }

  /** The entry of the source that `end` (END.words) names, or SOURCE_NONE. `take`: it gets one if it has none. */
  source(end: Int32Array, take: boolean): number {
    if (this.#closed || end.length !== END.words) return SOURCE_NONE;
    return addon().engineSource(this.#handle, end, take);
  }

  /** The engine has been closed. */
  shut(): void {
    this.#closed = true;
    this.#sending.clear();
  }
}
