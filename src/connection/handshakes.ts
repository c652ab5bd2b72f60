/**
 * The TLS handshakes of one worker: how many are in progress, which is bounded because each of them costs memory and a
 * signature, and why others have failed, which is told in the log at most once a second. Where there is no place left,
 * the oldest makes room if it has had a good part of its time: else connections that say nothing would keep everybody
 * out. Younger ones stay, so that those that come all at once are not thrown out half done by one another.
 */
import type { Logger } from "../base/log.ts";
import { WORKER_FIELDS, type WorkerBlock } from "../os/scoreboard.ts";

const REJECTED = WORKER_FIELDS.indexOf("rejected");
const REJECTED_HANDSHAKES = WORKER_FIELDS.indexOf("rejectedHandshakes");
const EVERY_MS = 1_000;
/** Reasons are OpenSSL's, of which there are hundreds. */
const REASONS_MAX = 8;

/** The part of its time that one has, whoever else comes. */
const SPARED_PART = 0.2;

/** What is ended when others need its place. */
export interface Handshake {
  end(reason: "handshake-timeout"): void;
}

export class Handshakes {
  limit: number;
  /** When they began, clock, ms; the oldest first. */
  readonly #begun = new Map<Handshake, number>();
  readonly #head: Float64Array;
  readonly #log: Logger;
  /** By reason, since they were told. */
  readonly #failed = new Map<string, number>();
  #saidAt = Number.NEGATIVE_INFINITY;

  constructor(limit: number, { head }: WorkerBlock, log: Logger) {
    this.limit = limit;
    this.#head = head;
    this.#log = log;
  }

  get inProgress(): number {
    return this.#begun.size;
  }

  /** One more begins. False when that is too many; it is counted as rejected then. */
  begin(handshake: Handshake, now: number, timeoutMs: number): boolean {
    if (this.#begun.size === this.limit) this.#makeRoom(now - SPARED_PART * timeoutMs);
    if (this.#begun.size < this.limit) {
      this.#begun.set(handshake, now);
      return true;
    }
    this.#head[REJECTED] = (this.#head[REJECTED] as number) + 1;
    this.#head[REJECTED_HANDSHAKES] = (this.#head[REJECTED_HANDSHAKES] as number) + 1;
    return false;
  }

  /** One that asked to begin is over. */
  end(handshake: Handshake): void {
    this.#begun.delete(handshake);
  }

  failed(reason: string): void {
    const known = this.#failed.has(reason) || this.#failed.size < REASONS_MAX;
    const name = known ? reason : "other";
    this.#failed.set(name, (this.#failed.get(name) ?? 0) + 1);
  }

  /** Call it every tick. */
  look(now: number): void {
    if (this.#failed.size === 0 || now - this.#saidAt < EVERY_MS) return;
    const reasons = [...this.#failed].map(([reason, count]) => `${count} ${reason}`);
    this.#log.info({ failed: Object.fromEntries(this.#failed) }, `TLS handshakes failed: ${reasons.join(", ")}`);
    this.#failed.clear();
    this.#saidAt = now;
  }

  /** Ends the oldest if it began by then, which calls `end`. */
  #makeRoom(by: number): void {
    const [oldest] = this.#begun;
    if (oldest && oldest[1] <= by) oldest[0].end("handshake-timeout");
  }
}
