/**
 * The open loop: messages are due at fixed times, `messagesPerSecond` over all connections in turn, whatever the server
 * does. Each latency is counted from the time at which its message was *due*, not from when it was sent.
 *
 * Why: a closed loop waits together with the server. When the server stalls for a second, each connection notices one
 * slow reply, and the hundreds of messages that users would have sent in that second are never sent and never counted
 * ("coordinated omission"). Here they are due all the same: a connection with `pipeline` replies outstanding is late,
 * sends what it owes as soon as it can, skips nothing, and each of those messages carries the time it had to wait. What is
 * still owed or unanswered when the run ends is counted as having taken at least until then.
 *
 * Timers have a grain of a millisecond, more than the latencies to be measured, so this loop does not sleep when
 * something is due within two: it goes round the event loop instead and takes a whole core. Give it one.
 */
import type { Client } from "./client.ts";
import type { Load, Traffic } from "./load.ts";

/** Sleep only when nothing is due for this long, and wake so much too early: a timer may be late by as much, ms. */
const SPIN_MS = 2;

/** The first message of a connection is the one it sends when it opens; the schedule begins behind it. */
const GREETINGS = 1;

export class OpenLoop implements Traffic {
  readonly #load: Load;
  readonly #clients: readonly Client[];
  readonly #intervalMs: number;
  /** Per connection: messages that were due so far, the greeting included. */
  readonly #due: Int32Array;
  #startedAt = 0;
  #measuredFrom = Number.POSITIVE_INFINITY;
  #stopped = false;
  /** The message that is due next: which, and whose. */
  #next = 0;
  #turn = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(load: Load, clients: readonly Client[]) {
    this.#load = load;
    this.#clients = clients;
    this.#intervalMs = 1000 / (load.share.messagesPerSecond ?? 1);
    this.#due = new Int32Array(clients.length).fill(GREETINGS);
  }

  opened(client: Client): void {
    if (!this.#stopped) client.send();
  }

  replied(client: Client, sequence: number, time: number): void {
    this.#record(this.#dueAt(client, sequence), time);
    if (client.sent < (this.#due[client.index] as number) && !this.#stopped) client.send();
  }

  go(): void {
    this.#startedAt = this.#load.clock.fresh();
    this.#measuredFrom = this.#startedAt;
    this.#pump();
  }

  measure(time: number): void {
    this.#measuredFrom = time;
  }

  stop(time: number): void {
    this.#sendDue(time);
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#load.engine.flush();
    for (const client of this.#clients) {
      const due = this.#due[client.index] as number;
      for (let sequence = Math.max(client.sent, GREETINGS); sequence < due; sequence++) {
        this.#load.tally.unsent += 1;
        this.#record(this.#dueAt(client, sequence), time);
      }
    }
  }

  finish(time: number): void {
    for (const client of this.#clients) {
      for (let sequence = client.received; sequence < client.sent; sequence++) {
        this.#record(this.#dueAt(client, sequence), time);
      }
    }
  }

  /** When that message was due; the greeting never was. */
  #dueAt(client: Client, sequence: number): number {
    if (sequence < GREETINGS) return Number.NEGATIVE_INFINITY;
    return this.#startedAt + (client.index + (sequence - GREETINGS) * this.#clients.length) * this.#intervalMs;
  }

  #record(dueAt: number, time: number): void {
    if (dueAt >= this.#measuredFrom) this.#load.latencies.record(time - dueAt);
  }

  #sendDue(time: number): void {
    const due = this.#due;
    while (this.#startedAt + this.#next * this.#intervalMs <= time) {
      const client = this.#clients[this.#turn] as Client;
      this.#next += 1;
      this.#turn = this.#turn + 1 === this.#clients.length ? 0 : this.#turn + 1;
      due[client.index] = (due[client.index] as number) + 1;
      if (client.phase === "open" && client.sent - client.received < this.#load.share.pipeline) client.send();
    }
  }

  #pump(): void {
    if (this.#stopped) return;
    const time = this.#load.clock.fresh();
    this.#sendDue(time);
    this.#load.engine.flush();
    const wait = this.#startedAt + this.#next * this.#intervalMs - time;
    if (wait > SPIN_MS) this.#timer = setTimeout(() => this.#pump(), wait - SPIN_MS);
    else setImmediate(() => this.#pump());
  }
}
