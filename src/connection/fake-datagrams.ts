/** The engine's part in testDatagrams: memory instead of sockets, and a small table of sources. */
import { END, END_BYTES, SOURCE, SOURCE_NONE, SOURCE_SILENT_MS, SOURCE_VERIFIED } from "../engine/layout.ts";
import { Source, type SourceOwner } from "./datagram-source.ts";
import type { DatagramTransport } from "./datagrams.ts";

const ARENA_BYTES = 1 << 17;
const SOURCES = 1_024;
/** What a source is known by: address, scope, port and listener. */
const KEY_WORDS = END.source;

export interface Sent {
  readonly to: { readonly host: string; readonly port: number };
  readonly bytes: Buffer;
}

/** Reads a source's words; there is nobody to send by. */
const READER: SourceOwner = { sendTo: () => "closed", isVerified: () => false, verify() {}, isOver: () => false };

export class FakeDatagrams implements DatagramTransport {
  readonly input: Buffer = Buffer.alloc(ARENA_BYTES);
  readonly inputWords: Int32Array = new Int32Array(this.input.buffer, this.input.byteOffset, ARENA_BYTES / 4);
  readonly output: Buffer = Buffer.alloc(ARENA_BYTES);
  readonly outputWords: Int32Array = new Int32Array(this.output.buffer, this.output.byteOffset, ARENA_BYTES / 4);
  readonly sources: Int32Array = new Int32Array(SOURCES * SOURCE.words);
  readonly waiting: number = 0;
  /** Bytes that a source may get for each that came from it; 0: any number. */
  factor: number;
  serving = true;
  sent: Sent[] = [];
  readonly #entries = new Map<string, number>();
  readonly #now: () => number;
  #next = 0;

  /** `now`: ms. */
  constructor(factor: number, now: () => number) {
    this.factor = factor;
    this.#now = now;
  }

  /** A datagram arrives. Returns where its bytes stand. */
  arrive(end: Int32Array, bytes: Uint8Array): number {
    if (this.factor > 0) {
      const entry = this.source(end, true);
      const cell = entry * SOURCE.words;
      const now = this.#now() | 0;
      const silentMs = (now - (this.sources[cell + SOURCE.heard] as number)) >>> 0;
      if (silentMs > SOURCE_SILENT_MS) this.sources[cell + SOURCE.credit] = 0;
      this.sources[cell + SOURCE.heard] = now;
      const credit = this.sources[cell + SOURCE.credit] as number;
      if (credit !== SOURCE_VERIFIED) this.sources[cell + SOURCE.credit] = credit + bytes.length * this.factor;
      end[END.source] = entry;
      end[END.generation] = this.sources[cell + SOURCE.generation] as number;
    }
    this.inputWords.set(end, 0);
    this.input.set(bytes, END_BYTES);
    return END_BYTES;
  }

  sends(): boolean {
    return this.serving;
  }

  reserve(): number {
    return 0;
  }

  submit(_listener: number, at: number, size: number): void {
    const { host, port } = new Source(READER, this.outputWords, at / 4);
    const body = at + END_BYTES;
    this.sent.push({ to: { host, port }, bytes: Buffer.from(this.output.subarray(body, body + size)) });
  }

  source(end: Int32Array, take: boolean): number {
    const key = end.subarray(0, KEY_WORDS).join();
    const known = this.#entries.get(key);
    if (known !== undefined || !take) return known ?? SOURCE_NONE;
    const entry = this.#next++ % SOURCES;
    for (const [other, held] of this.#entries) if (held === entry) this.#entries.delete(other);
    this.#entries.set(key, entry);
    const cell = entry * SOURCE.words;
    this.sources[cell + SOURCE.credit] = 0;
    this.sources[cell + SOURCE.heard] = this.#now() | 0;
    this.sources[cell + SOURCE.generation] = (this.sources[cell + SOURCE.generation] as number) + 1;
    return entry;
  }
}
