/**
 * The TLS handshakes of one worker: how many are in progress, which is bounded because each of them costs memory and a
 * signature, and why others have failed, which is told in the log at most once a second.
 */
import type { Logger } from "../base/log.ts";
import { WORKER_FIELDS, type WorkerBlock } from "../os/scoreboard.ts";

const REJECTED = WORKER_FIELDS.indexOf("rejected");
const REJECTED_HANDSHAKES = WORKER_FIELDS.indexOf("rejectedHandshakes");
const EVERY_MS = 1_000;
/** Reasons are OpenSSL's, of which there are hundreds. */
const REASONS_MAX = 8;

export class Handshakes {
  limit: number;
  #inProgress = 0;
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
    return this.#inProgress;
  }

  /** One more begins. False when that is too many; it is counted as rejected then. */
  begin(): boolean {
    this.#inProgress += 1;
    if (this.#inProgress <= this.limit) return true;
    this.#head[REJECTED] = (this.#head[REJECTED] as number) + 1;
    this.#head[REJECTED_HANDSHAKES] = (this.#head[REJECTED_HANDSHAKES] as number) + 1;
    return false;
  }

  /** One that has begun is over. */
  end(): void {
    this.#inProgress -= 1;
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
}
