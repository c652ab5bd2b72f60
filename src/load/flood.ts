/**
 * The flood: every connection is kept full, without waiting for replies, which are verified all the same. Two bounds
 * keep it from filling the machine's memory: unsent bytes per connection (the kernel takes no more), and bytes without
 * a reply (they lie in socket buffers, and thousands of full ones would exhaust net.ipv4.tcp_mem for everybody).
 * No latency is measured: it would only tell how long the queues are.
 */
import { OUTPUT_BYTES } from "../engine/layout.ts";
import type { Client } from "./client.ts";
import type { Load, Traffic } from "./load.ts";

const KiB = 1024;
const UNSENT_BYTES = 64 * KiB;
/** Without a reply, per connection and over all of a process. */
const AHEAD_BYTES = 1024 * KiB;
const AHEAD_ALL_BYTES = 256 * 1024 * KiB;
const LEAST_AHEAD_BYTES = 8 * KiB;
/** Messages are handed to the engine in pieces of this size. */
const PIECE_BYTES = 16 * KiB;
const STARTED_AT_ONCE = 64;

export class Flood implements Traffic {
  readonly #clients: readonly Client[];
  /** Messages handed over at a time. */
  readonly #piece: number;
  /** Messages without a reply that allow one more piece. */
  readonly #most: number;
  #running = false;
  #stopped = false;

  constructor(load: Load, clients: readonly Client[]) {
    this.#clients = clients;
    const size = load.payload.bytes;
    const share = Math.floor(AHEAD_ALL_BYTES / Math.max(1, clients.length));
    const ahead = Math.max(LEAST_AHEAD_BYTES, Math.min(AHEAD_BYTES, share));
    this.#piece = Math.max(1, Math.floor(Math.min(PIECE_BYTES, ahead / 2, OUTPUT_BYTES) / size));
    this.#most = Math.max(0, Math.floor(ahead / size) - this.#piece);
  }

  opened(client: Client): void {
    if (!this.#stopped) client.send();
  }

  replied(): void {}

  arrived(client: Client): void {
    this.#fill(client);
  }

  writable(client: Client): void {
    this.#fill(client);
  }

  go(): void {
    this.#running = true;
    this.#start(0);
  }

  stop(): void {
    this.#running = false;
    this.#stopped = true;
  }

  /** A few connections at a time: filling thousands takes a second, in which nothing else would be heard. */
  #start(from: number): void {
    const to = Math.min(this.#clients.length, from + STARTED_AT_ONCE);
    for (const client of this.#clients.slice(from, to)) if (client.phase === "open") this.#fill(client);
    if (this.#running && to < this.#clients.length) setImmediate(() => this.#start(to));
  }

  #fill(client: Client): void {
    while (this.#running && client.sent - client.received <= this.#most) {
      if (client.unsent >= UNSENT_BYTES) {
        client.notifyBelow(UNSENT_BYTES / 2);
        return;
      }
      client.send(this.#piece);
    }
  }
}
