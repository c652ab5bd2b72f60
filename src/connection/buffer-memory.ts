/**
 * The budget of one worker for the bytes that its connections hold: received and not used, replied and not sent.
 * Counting is adding when a buffer grows or goes; looking is one comparison after each round. Above three quarters of
 * the budget reads of the largest holders pause, until it is half free again; whoever holds most is closed for each
 * second that it is not, since what is held back may be what would free it. Past the budget itself the largest holders
 * are closed at once, in the middle of a broadcast too.
 */
import type { Logger } from "../base/log.ts";
import type { CloseReason } from "../base/reasons.ts";
import { TICK_MS } from "../engine/layout.ts";
import { WORKER_FIELDS } from "../os/scoreboard.ts";
import { largestFirst } from "./largest.ts";

/** A connection, as far as it matters here. */
export interface BufferHolder {
  /** Some of them others may hold too: messages of a topic that wait for both. */
  readonly heldBytes: number;
  /** Takes no more input. */
  holdBack(): void;
  /** Takes input again. */
  goOn(): void;
  reset(reason: CloseReason): void;
}

/** What is asked of the engine. */
interface Outbound {
  readonly now: number;
  readonly bytesHeldOut: number;
  flush(): void;
  abandon(bytes: number): number;
}

export interface BufferMemoryOptions {
  readonly transport: Outbound;
  /** Bytes. */
  readonly budget: number;
  /** Head of the worker's block: where the bytes held inbound are counted. */
  readonly head: Float64Array;
  readonly log: Logger;
  /** Those that are open. */
  holders(): Iterable<BufferHolder>;
}

const HELD_IN = WORKER_FIELDS.indexOf("bytesHeldIn");
/** Parts of the budget. */
const PRESSURE = 0.75;
const RELIEF = 0.5;
/** Closing goes on to here, so that it is not done for each message. */
const AFTER_CLOSING = 0.875;
/** Between two closes while there is pressure, ms. */
const PATIENCE_MS = 1_000;
/** Between two warnings, ms. */
const SILENCE_MS = 10_000;

export class BufferMemory {
  readonly #options: BufferMemoryOptions;
  readonly #head: Float64Array;
  readonly #heldBack: Set<BufferHolder> = new Set();
  #budget!: number;
  #alarm!: number;
  #pressed = false;
  #shedding = false;
  /** Clocks, ms. */
  #lookAt = 0;
  #closeAt = 0;
  #silentUntil = 0;
  #closed = 0;

  constructor(options: BufferMemoryOptions) {
    this.#options = options;
    this.#head = options.head;
    this.#head[HELD_IN] = 0;
    this.limit(options.budget);
  }

  limit(budget: number): void {
    this.#budget = budget;
    this.#alarm = budget * PRESSURE;
  }

  /** Bytes held, in and out. */
  get held(): number {
    return (this.#head[HELD_IN] as number) + this.#options.transport.bytesHeldOut;
  }

  /** A buffer for received bytes, or for replies that wait for their turn, has grown by so many bytes, or gone. */
  add(bytes: number): void {
    this.#head[HELD_IN] = (this.#head[HELD_IN] as number) + bytes;
  }

  /** While messages are sent: past the budget, closes the largest holders. */
  guard(): void {
    if (this.held > this.#budget) this.#shed();
  }

  /** Between messages, at least every TICK_MS: all of the above. */
  review(): void {
    if (this.#pressed || this.held > this.#alarm) this.#relieve();
  }

  /** It has ended. */
  forget(holder: BufferHolder): void {
    this.#heldBack.delete(holder);
  }

  #relieve(): void {
    const { transport } = this.#options;
    const { now } = transport;
    this.guard();
    if (this.held <= this.#budget * RELIEF) {
      this.#end();
      return;
    }
    if (!this.#pressed) this.#begin(now);
    if (now < this.#lookAt) return;
    this.#lookAt = now + TICK_MS;
    this.#holdBack();
    if (now < this.#closeAt) return;
    this.#closeAt = now + PATIENCE_MS;
    for (const { holder } of largestFirst(this.#options.holders())) {
      this.#close(holder);
      return;
    }
    transport.abandon(1);
  }

  #begin(now: number): void {
    this.#pressed = true;
    this.#lookAt = now;
    this.#closeAt = now + PATIENCE_MS;
    if (now < this.#silentUntil) return;
    this.#silentUntil = now + SILENCE_MS;
    const figures = { held: this.held, budget: this.#budget, closed: this.#closed };
    this.#options.log.warn(
      figures,
      "buffers are nearly full (limits.bufferMemory): reads of the largest holders pause",
    );
  }

  #end(): void {
    this.#pressed = false;
    const waiting = [...this.#heldBack];
    this.#heldBack.clear();
    for (const holder of waiting) holder.goOn();
  }

  /** Holds the largest back: those that are left hold no more than there is when it is over. */
  #holdBack(): void {
    let rest = this.held;
    for (const { holder, bytes } of largestFirst(this.#options.holders())) {
      if (rest <= this.#budget * RELIEF) break;
      rest -= bytes;
      if (this.#heldBack.has(holder)) continue;
      this.#heldBack.add(holder);
      holder.holdBack();
    }
  }

  /** Closes until there is room again; first those that are closed already and only wait for their peer. */
  #shed(): void {
    if (this.#shedding) return;
    const { transport } = this.#options;
    const target = this.#budget * AFTER_CLOSING;
    transport.abandon(this.held - target);
    if (this.held <= target) return;
    // What a closed one says to others in its `onClose` may bring them here.
    this.#shedding = true;
    for (const { holder } of largestFirst(this.#options.holders())) {
      // How much one frees is not what it holds, where others hold it too.
      if (this.held <= target) break;
      this.#close(holder);
    }
    this.#shedding = false;
  }

  #close(holder: BufferHolder): void {
    if (holder.heldBytes === 0) return;
    holder.reset("memory-pressure");
    this.#closed += 1;
    this.#options.transport.flush();
  }
}
