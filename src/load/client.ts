/**
 * One connection of the load: owner of an engine slot. It sends the messages it is told to, compares what comes back
 * byte for byte where it lies in the input arena, and tells the traffic of every right reply. Per message it allocates
 * nothing. A wrong byte ends it: what follows could not be told apart.
 */
import { constants } from "node:os";
import { isPeerReset, type SlotOwner } from "../engine/engine.ts";
import type { Load } from "./load.ts";

/** Bytes shown of a mismatch. */
const SHOWN_BYTES = 16;
/** What may still be unsent when the load ends has this long to leave, ms. */
const FLUSH_MS = 1_000;

export type ClientPhase = "new" | "connecting" | "open" | "closed";

export class Client implements SlotOwner {
  /** Unique over all processes. */
  readonly number: number;
  /** Position among the connections of this process. */
  readonly index: number;
  phase: ClientPhase = "new";
  /** When the connect began, RoundClock ms. */
  startedAt = 0;
  /** Messages handed to the engine. */
  sent = 0;
  /** Whole replies. */
  received = 0;
  readonly #load: Load;
  #slot = -1;
  #generation = 0;
  /** Bytes of the next reply that came already. */
  #position = 0;

  constructor(load: Load, number: number, index: number) {
    this.#load = load;
    this.number = number;
    this.index = index;
  }

  /** Begins to connect. False when that fails at once: counted, and nobody is told. */
  connect(source: string, options: Int32Array): boolean {
    const { engine, tally, share, clock } = this.#load;
    this.startedAt = clock.fresh();
    this.phase = "connecting";
    tally.requested += 1;
    this.#slot = engine.connect(share.host, share.port, source, options, this);
    if (this.#slot >= 0) {
      this.#generation = engine.generation(this.#slot);
      return true;
    }
    this.phase = "closed";
    tally.count(tally.failed, this.#slot);
    return false;
  }

  /** Sends its next `count` messages, which must fit the output arena together. */
  send(count = 1): void {
    const { engine, payload, tally } = this.#load;
    const size = payload.bytes * count;
    const from = engine.reserve(size);
    for (let at = from; at < from + size; at += payload.bytes)
      payload.write(engine.output, at, this.number, this.sent++);
    tally.sent += count;
    engine.submit(this.#slot, this.#generation, from, size, true);
  }

  /** Bytes handed to the engine that the kernel has not taken. */
  get unsent(): number {
    return this.#load.engine.unsent[this.#slot] as number;
  }

  /** Calls Traffic.writable once fewer than `mark` bytes are unsent. */
  notifyBelow(mark: number): void {
    this.#load.engine.notifyBelow(this.#slot, this.#generation, mark);
  }

  /** Ends the connection. Replies that it still owed are lost. */
  end(how: "finish" | "reset"): void {
    if (this.phase === "closed") return;
    const { engine, tally } = this.#load;
    const connected = this.phase === "open";
    if (connected) this.#load.encryption?.keep(this.#slot, this.#generation);
    this.phase = "closed";
    tally.lost += this.sent - this.received;
    if (how === "finish" && connected) engine.close(this.#slot, this.#generation, FLUSH_MS);
    else engine.reset(this.#slot, this.#generation);
    this.#load.gone(this);
  }

  onOpen(): void {
    const { encryption } = this.#load;
    if (encryption) encryption.begin(this.#slot, this.#generation);
    else this.#opened();
  }

  onSecured(): void {
    if (this.#load.encryption?.secured(this.#slot, this.#generation)) this.#opened();
    else this.onError(constants.errno.EPROTO);
  }

  #opened(): void {
    this.phase = "open";
    this.#load.tally.opened += 1;
    this.#load.opened(this);
  }

  onData(input: Buffer, from: number, to: number): void {
    const { payload, tally, traffic, clock } = this.#load;
    const time = clock.now();
    tally.bytesReceived += to - from;
    while (from < to) {
      const sequence = this.received;
      const end = Math.min(to, from + payload.bytes - this.#position);
      const wrong =
        sequence === this.sent ? from : payload.check(input, from, end, this.#position, this.number, sequence);
      if (wrong >= 0) {
        this.#mismatched(input, from, wrong, to);
        return;
      }
      this.#position += end - from;
      from = end;
      if (this.#position < payload.bytes) break;
      this.#position = 0;
      this.received = sequence + 1;
      tally.verified += 1;
      traffic.replied(this, sequence, time);
      if (this.phase === "closed") return;
    }
    traffic.arrived?.(this);
  }

  onEnd(): void {
    this.#load.tally.closedByPeer += 1;
    this.end("finish");
  }

  onError(errno: number): void {
    const { tally } = this.#load;
    tally.count(this.phase === "connecting" ? tally.failed : tally.resets, errno);
    this.end(isPeerReset(errno) ? "reset" : "finish");
  }

  onWritable(): void {
    this.#load.traffic.writable?.(this);
  }

  onBlocked(): void {
    // The traffic that must know asks for `writable`.
  }

  #mismatched(input: Buffer, from: number, wrong: number, to: number): void {
    const { tally, payload } = this.#load;
    const due = this.received < this.sent;
    if (due) {
      tally.wrong += 1;
      this.received += 1;
    } else {
      tally.unexpected += 1;
    }
    const offset = this.#position + wrong - from;
    const expected = Buffer.alloc(due ? Math.min(SHOWN_BYTES, payload.bytes - offset) : 0);
    const message = due ? this.received - 1 : this.received;
    for (let i = 0; i < expected.length; i++) expected[i] = payload.byteAt(offset + i, this.number, message);
    tally.mismatch ??= {
      connection: this.number,
      message,
      offset,
      expected: shown(expected),
      got: shown(input.subarray(wrong, Math.min(to, wrong + SHOWN_BYTES))),
    };
    this.end("reset");
  }
}

/** Bytes as they would stand in a string literal, without the quotes. */
function shown(bytes: Uint8Array): string {
  const printable = (byte: number): string => {
    if (byte === 10) return "\\n";
    if (byte < 0x20 || byte > 0x7e) return `\\x${byte.toString(16).padStart(2, "0")}`;
    return byte === 0x5c ? "\\\\" : String.fromCharCode(byte);
  };
  return Array.from(bytes, printable).join("");
}
