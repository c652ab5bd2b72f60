import type { RejectReason } from "../base/reasons.ts";
import type { AdoptOptions, ReleasedSlot, SlotOwner } from "../engine/engine.ts";
import type { Laps } from "../engine/laps.ts";

/** What a connection asks of the engine. The harness of testConnection is the other implementation. */
export interface Transport {
  readonly now: number;
  /** The same clock, read anew. */
  clock(): number;
  /** By which requests are timed. */
  readonly laps: Laps;
  readonly output: Buffer;
  readonly unsent: Int32Array;
  readonly counters: Float64Array;
  reserve(size: number): number;
  submit(slot: number, generation: number, at: number, size: number, coalesce: boolean): void;
  share(bytes: Uint8Array): number;
  submitShared(slot: number, generation: number, at: number, size: number): void;
  sendLarge(slot: number, generation: number, bytes: Uint8Array): void;
  notifyBelow(slot: number, generation: number, mark: number): void;
  pause(slot: number, generation: number): void;
  resume(slot: number, generation: number): void;
  close(slot: number, generation: number, flushMs: number): void;
  reset(slot: number, generation: number): void;
  flush(): void;
  unread(slot: number, generation: number): number;
  peer(slot: number, generation: number): { host: string; port: number };
  admit(slot: number, generation: number, host: string, port: number): RejectReason | undefined;
  generation(slot: number): number;
  own(slot: number, generation: number, owner: SlotOwner): void;
  release(slot: number, generation: number): ReleasedSlot;
  adopt(listener: number, fd: number, owner: SlotOwner, options: AdoptOptions): number;
  readonly bytesHeldOut: number;
  abandon(bytes: number): number;
  leave(listener: number, entry: number): void;
}
