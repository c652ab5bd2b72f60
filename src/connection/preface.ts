/**
 * The owner of a slot from accept until its service may know of it: what comes before the service's own bytes is done
 * by stages, one after the other (a PROXY header, a TLS handshake). Only listeners that have a stage make prefaces. A
 * preface ends once: by becoming a ServedConnection, which then owns the slot, or with a reason, which is counted as a
 * connection's is. It holds no place in a drain: it goes on until it is through or late, and is not moved.
 */
import { DEBUG_LEVEL } from "../base/log.ts";
import { type CloseReason, isPeerFault, reasonIndex } from "../base/reasons.ts";
import type { Held } from "../codec/held.ts";
import { isPeerReset, type SlotOwner } from "../engine/engine.ts";
import { COUNTER, TICK_MS } from "../engine/layout.ts";
import { LISTENER_CLOSED, LISTENER_FIELDS } from "../os/scoreboard.ts";
import { ServedConnection } from "./connection.ts";
import type { Endpoint } from "./endpoint.ts";
import type { Origin } from "./origin.ts";

const PREFACES = LISTENER_FIELDS.indexOf("prefaces");
const NEVER = Number.POSITIVE_INFINITY;
const NOTHING: Buffer = Buffer.alloc(0);
/** How late a busy worker may come to read what is there in time, ms. */
const LATE_MS = 1_000;

/**
 * One step. An endpoint has one object of each, for all its connections: what a stage has to remember of one of them
 * stands in the Preface. From `begin` on it gets what happens to the slot, until it calls `pass`, `end` or `refuse`.
 */
export interface PrefaceStage {
  /** What it may take, ms, and how the connection ends otherwise. Read when it begins. */
  readonly timeoutMs: number;
  readonly timeoutReason: CloseReason;
  /** `early`: bytes behind those of the stage before; valid until it returns. */
  begin(preface: Preface, early: Buffer): void;
  /** `input[from, to)` arrived; the memory is reused when the call returns. */
  onData(preface: Preface, input: Buffer, from: number, to: number): void;
  /** The peer sends no more, or did so before `begin`. Without: it ends as `peer-closed`. */
  onEnd?(preface: Preface): void;
  /** The socket has failed. Without: it ends as `peer-reset` or `io-error`. */
  onError?(preface: Preface, errno: number): void;
  /** The slot is encrypted now. */
  onSecured?(preface: Preface): void;
  /** Its time is up. Without: it ends with `timeoutReason`. */
  onTimeout?(preface: Preface): void;
  /** It is over, one way or the other: called once for each `begin`. */
  onLeft?(preface: Preface): void;
}

export class Preface implements SlotOwner {
  readonly endpoint: Endpoint;
  readonly slot: number;
  readonly generation: number;
  /** What the stages found out about the connection; they add to it. */
  origin: Origin | undefined;
  /** Bytes that a stage keeps. Dropped when it is over. */
  held: Held | undefined;
  /** Clock, ms. */
  readonly openedAt: number;

  readonly #stages: readonly PrefaceStage[];
  #at = -1;
  /** Clock, ms. */
  #dueAt = NEVER;
  /** Bytes that had been read when its time was up; -1 before. */
  #receivedWhenDue = -1;
  #peerEnded = false;
  #open = true;

  /** `stages`: at least one. */
  constructor(endpoint: Endpoint, slot: number, generation: number) {
    this.endpoint = endpoint;
    this.slot = slot;
    this.generation = generation;
    this.openedAt = endpoint.transport.now;
    this.#stages = endpoint.stages;
  }

  get open(): boolean {
    return this.#open;
  }

  /** It has no number yet. */
  get id(): string {
    return `${this.endpoint.idPrefix}-p${this.slot}.${this.generation}`;
  }

  // ---- what a stage says ----

  /** The stage is through; `input[from, to)` came behind what it used. The next one begins, or the connection does. */
  pass(input: Buffer = NOTHING, from = 0, to: number = input.length): void {
    if (!this.#open) return;
    const held = this.held;
    this.held = undefined;
    this.#stages[this.#at]?.onLeft?.(this);
    if (this.#at + 1 < this.#stages.length) this.#begin(input.subarray(from, to));
    else this.#serve(input, from, to);
    // Only now: `input` may be its memory.
    held?.drop();
  }

  /** Ends it. RST unless `how` says otherwise: where nothing was sent, nothing can be lost. */
  end(reason: CloseReason, how: "close" | "reset" = "reset"): void {
    if (!this.#open) return;
    const { log, faults } = this.endpoint;
    if (log.levelVal <= DEBUG_LEVEL) this.#logEnd(reason);
    if (isPeerFault(reason)) faults.note(reason, this);
    this.endpoint.noteClose(this.id, reason, this.openedAt, this.slot, this.generation);
    this.#leave(reason, how);
  }

  get remote(): { readonly host: string; readonly port: number } {
    return this.endpoint.transport.peer(this.slot, this.generation);
  }

  #logEnd(reason: CloseReason): void {
    const { counters, now } = this.endpoint.transport;
    const bytesReceived = counters[this.slot * COUNTER.words + COUNTER.received];
    const durationMs = Math.max(0, Math.floor(now - this.openedAt));
    this.endpoint.log.debug(
      { reason, remote: this.remote, durationMs, bytesReceived },
      "connection closed before it was served",
    );
  }

  /** There is no place for it, or for the client that was named. Why is counted already. */
  refuse(): void {
    if (this.#open) this.#leave("rejected", this.endpoint.limits.onLimit === "close" ? "close" : "reset");
  }

  // ---- what the engine says ----

  onOpen(): void {
    this.#count(1);
    this.#begin(NOTHING);
  }

  onData(input: Buffer, from: number, to: number): void {
    const { laps } = this.endpoint.transport;
    laps.forget();
    this.#stages[this.#at]?.onData(this, input, from, to);
    laps.forget();
  }

  onEnd(): void {
    this.#peerEnded = true;
    this.#tellOfEnd(this.#stages[this.#at]);
  }

  onError(errno: number): void {
    const stage = this.#stages[this.#at];
    if (stage?.onError) stage.onError(this, errno);
    else this.end(isPeerReset(errno) ? "peer-reset" : "io-error");
  }

  onSecured(): void {
    this.#stages[this.#at]?.onSecured?.(this);
  }

  onWritable(): void {}

  onBlocked(): void {}

  /** The wheel has come round; returns when to look again (ms). */
  onDue(now: number): number {
    if (!this.#open || this.#dueAt > now) return this.#dueAt;
    if (now < this.#dueAt + LATE_MS && this.#isUnread()) return now + TICK_MS;
    const stage = this.#stages[this.#at];
    this.#dueAt = NEVER;
    if (stage?.onTimeout) stage.onTimeout(this);
    else if (stage) this.end(stage.timeoutReason);
    return this.#open ? this.#dueAt : NEVER;
  }

  /** What the peer sent in time may wait for this worker to read it. Once it has, what came later counts no more. */
  #isUnread(): boolean {
    const { transport } = this.endpoint;
    const received = transport.counters[this.slot * COUNTER.words + COUNTER.received] as number;
    if (this.#receivedWhenDue >= 0 && this.#receivedWhenDue !== received) return false;
    this.#receivedWhenDue = received;
    return transport.unread(this.slot, this.generation) > 0;
  }

  // ---- from one to the next ----

  #tellOfEnd(stage: PrefaceStage | undefined): void {
    if (stage?.onEnd) stage.onEnd(this);
    else this.end("peer-closed");
  }

  #begin(early: Buffer): void {
    const { transport, wheel } = this.endpoint;
    const stage = this.#stages[++this.#at] as PrefaceStage;
    this.#dueAt = transport.now + stage.timeoutMs;
    this.#receivedWhenDue = -1;
    wheel.start(this.slot, this.#dueAt);
    stage.begin(this, early);
    if (this.#peerEnded && this.#open && this.#stages[this.#at] === stage) this.#tellOfEnd(stage);
  }

  /** From here on it is a connection like any other. */
  #serve(input: Buffer, from: number, to: number): void {
    const { endpoint, slot, generation } = this;
    this.#open = false;
    this.#count(-1);
    const connection = new ServedConnection(endpoint, slot, generation);
    if (this.origin) connection.comesFrom(this.origin);
    endpoint.transport.own(slot, generation, connection);
    connection.onOpen();
    if (to > from && !connection.closed) connection.onData(input, from, to);
    if (this.#peerEnded && !connection.closed) connection.onEnd();
    endpoint.onPrefaceEnd?.(connection);
  }

  #leave(reason: CloseReason, how: "close" | "reset"): void {
    const { transport, row } = this.endpoint;
    this.#open = false;
    this.#dueAt = NEVER;
    this.#count(-1);
    const cell = LISTENER_CLOSED + reasonIndex(reason);
    row[cell] = (row[cell] as number) + 1;
    this.held?.drop();
    this.held = undefined;
    if (how === "reset") transport.reset(this.slot, this.generation);
    else transport.close(this.slot, this.generation, this.endpoint.flushMs);
    this.#stages[this.#at]?.onLeft?.(this);
    this.endpoint.onPrefaceEnd?.(undefined);
  }

  #count(by: number): void {
    const { row } = this.endpoint;
    row[PREFACES] = (row[PREFACES] as number) + by;
  }
}
