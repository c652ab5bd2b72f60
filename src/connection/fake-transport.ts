/** The engine's part in a testConnection: memory instead of a socket, and a peer that takes all or nothing. */
import type { RejectReason } from "../base/reasons.ts";
import type { AdoptOptions, ReleasedSlot, SlotOwner } from "../engine/engine.ts";
import { Laps } from "../engine/laps.ts";
import { COUNTER, ENTRY } from "../engine/layout.ts";
import type { Transport } from "./transport.ts";

export const SLOT: number = 0;
export const GENERATION: number = 1;
const START_MS = 1_000_000;
/** Nothing is ever done with it. */
const NO_DESCRIPTOR = -1;
const OUTPUT_BYTES = 1 << 20;

export class FakeTransport implements Transport {
  now: number = START_MS;
  readonly laps: Laps = new Laps(() => this.now);
  readonly output: Buffer = Buffer.alloc(OUTPUT_BYTES);
  readonly unsent: Int32Array = new Int32Array(1);
  readonly counters: Float64Array = new Float64Array(COUNTER.words).fill(START_MS, COUNTER.receivedAt);
  readonly remote: { host: string; port: number };
  paused = false;
  stalled = false;
  notifyMark = 0;
  /** Set when something was kept back while stalled. */
  blocked = false;
  sent: Buffer[] = [];
  /** Who was made the owner of the slot since it opened. */
  owner: SlotOwner | undefined;
  /** Why nobody else may be admitted as a client. */
  rejects: RejectReason | undefined;
  #kept: Buffer[] = [];

  constructor(remote: { host: string; port: number }) {
    this.remote = remote;
  }

  /** The same peer and the same clock, seen from another worker. */
  next(): FakeTransport {
    const transport = new FakeTransport(this.remote);
    transport.now = this.now;
    transport.stalled = this.stalled;
    return transport;
  }

  clock(): number {
    return this.now;
  }

  reserve(size: number): number {
    return size > OUTPUT_BYTES ? -1 : 0;
  }

  submit(_slot: number, _generation: number, at: number, size: number): void {
    this.sendLarge(SLOT, GENERATION, this.output.subarray(at, at + size));
  }

  share(bytes: Uint8Array): number {
    if (bytes.length > OUTPUT_BYTES) return -1;
    this.output.set(bytes, 0);
    return 0;
  }

  submitShared(_slot: number, _generation: number, at: number, size: number): void {
    this.submit(SLOT, GENERATION, at, size);
  }

  sendLarge(_slot: number, _generation: number, bytes: Uint8Array): void {
    this.unsent[SLOT] = (this.unsent[SLOT] as number) + bytes.length;
    if (this.#kept.length === 0) this.counters[COUNTER.progressAt] = this.now;
    this.#kept.push(Buffer.from(bytes));
    this.flush();
    if (this.stalled) this.blocked = true;
  }

  flush(): void {
    if (this.stalled || this.#kept.length === 0) return;
    this.counters[COUNTER.progressAt] = this.now;
    this.sent.push(...this.#kept.splice(0));
    this.unsent[SLOT] = 0;
  }

  notifyBelow(_slot: number, _generation: number, mark: number): void {
    this.notifyMark = mark;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  close(): void {}

  reset(): void {
    this.#kept = [];
    this.unsent[SLOT] = 0;
  }

  unread(): number {
    return 0;
  }

  peer(): { host: string; port: number } {
    return this.remote;
  }

  admit(_slot: number, _generation: number, host: string, port: number): RejectReason | undefined {
    if (!this.rejects) Object.assign(this.remote, { host, port });
    return this.rejects;
  }

  own(_slot: number, _generation: number, owner: SlotOwner): void {
    this.owner = owner;
  }

  generation(): number {
    return GENERATION;
  }

  release(): ReleasedSlot {
    const unsent = Buffer.concat(this.#kept.splice(0));
    this.unsent[SLOT] = 0;
    const [received = 0, sent = 0, receivedAt = 0, progressAt = 0] = this.counters;
    return { fd: NO_DESCRIPTOR, unsent, entry: ENTRY.notCounted, received, sent, receivedAt, progressAt };
  }

  adopt(_listener: number, _fd: number, _owner: SlotOwner, { counters }: AdoptOptions): number {
    if (counters) this.counters.set([counters.received, counters.sent, counters.receivedAt, counters.progressAt]);
    this.paused = false;
    return SLOT;
  }

  get bytesHeldOut(): number {
    return this.unsent[SLOT] as number;
  }

  abandon(): number {
    return 0;
  }

  leave(): void {}
}
