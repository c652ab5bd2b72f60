/**
 * One flow of a load over UDP: a socket of its own, so an address and port of its own, by which the kernel gives all of
 * it to one worker. Its messages are numbered; an answer may be lost, or come late, and is compared byte for byte. Per
 * message it allocates nothing.
 */
import type { Datagrams, Receiver } from "../engine/datagrams.ts";
import { END, END_BYTES } from "../engine/layout.ts";
import type { Payload } from "./payload.ts";
import type { Tally } from "./tally.ts";

/** What flows share. */
export interface DatagramLoad {
  readonly datagrams: Datagrams;
  readonly payload: Payload;
  readonly tally: Tally;
  /** The other end of every message. */
  readonly server: Int32Array;
  /** An answer came, to what was sent at `sentAt`. */
  answered(flow: DatagramFlow, sentAt: number): void;
}

/** Messages without an answer that a flow remembers; one that is older is lost. A power of two. */
const REMEMBERED = 4_096;
/** The digits of a sequence number stand behind those of the flow (payload.ts). */
const SEQUENCE_AT = 4;
const SEQUENCE_DIGITS = 4;
const DIGIT_BITS = 6;
const ZERO = 0x30;
const SEQUENCE_MASK = (1 << (DIGIT_BITS * SEQUENCE_DIGITS)) - 1;

export class DatagramFlow implements Receiver {
  readonly number: number;
  /** Of the engine's listeners. */
  readonly row: number;
  sent = 0;
  /** Messages that may still be answered. */
  awaited = 0;
  readonly #load: DatagramLoad;
  /** When each was sent, by its number; 0: answered, or given up. */
  readonly #sentAt = new Float64Array(REMEMBERED);

  constructor(load: DatagramLoad, number: number, row: number) {
    this.#load = load;
    this.number = number;
    this.row = row;
  }

  /** Sends its next message, at `time`. */
  send(time: number): void {
    const { datagrams, payload, tally, server } = this.#load;
    const cell = this.sent & (REMEMBERED - 1);
    if (this.#sentAt[cell] !== 0) this.#lose(cell);
    const at = datagrams.reserve(payload.bytes);
    const words = datagrams.outputWords;
    const first = at >> 2;
    for (let word = 0; word < END.words; word++) words[first + word] = server[word] as number;
    payload.write(datagrams.output, at + END_BYTES, this.number, this.sent);
    datagrams.submit(this.row, at, payload.bytes);
    this.#sentAt[cell] = time;
    this.sent += 1;
    this.awaited += 1;
    tally.sent += 1;
  }

  onDatagram(at: number, length: number): void {
    const { datagrams, payload, tally } = this.#load;
    const { input } = datagrams;
    tally.bytesReceived += length;
    // Which of the last ones it is an answer to.
    const sequence = this.sent - 1 - ((this.sent - 1 - this.#sequenceOf(input, at)) & SEQUENCE_MASK);
    const cell = sequence & (REMEMBERED - 1);
    const sentAt = sequence >= 0 && this.sent - sequence <= REMEMBERED ? (this.#sentAt[cell] as number) : 0;
    if (length !== payload.bytes || payload.check(input, at, at + length, 0, this.number, sequence) >= 0) {
      tally.wrong += 1;
      return;
    }
    // Late, or a second time.
    if (sentAt === 0) {
      tally.unexpected += 1;
      return;
    }
    this.#sentAt[cell] = 0;
    this.awaited -= 1;
    tally.verified += 1;
    this.#load.answered(this, sentAt);
  }

  /** Gives up what was sent before `time`. Returns how many. */
  expire(time: number): number {
    let lost = 0;
    for (let cell = 0; this.awaited > 0 && cell < REMEMBERED; cell++) {
      const sentAt = this.#sentAt[cell] as number;
      if (sentAt === 0 || sentAt >= time) continue;
      this.#lose(cell);
      lost += 1;
    }
    return lost;
  }

  #lose(cell: number): void {
    this.#sentAt[cell] = 0;
    this.awaited -= 1;
    this.#load.tally.lost += 1;
  }

  /** As it was sent: the flow's number is added to it. */
  #sequenceOf(input: Buffer, at: number): number {
    let value = 0;
    for (let digit = 0; digit < SEQUENCE_DIGITS; digit++) {
      value |= (((input[at + SEQUENCE_AT + digit] as number) - ZERO) & 63) << (DIGIT_BITS * digit);
    }
    return value - this.number;
  }
}
