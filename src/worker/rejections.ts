/**
 * Says in the log how many newcomers were turned away, by reason, with one of each as an example, and how often accepting
 * failed: at most once a second of each, however many there were. The engine counts them in the worker's block of the scoreboard; this looks there.
 */
import type { Logger } from "../base/log.ts";
import { REJECT_REASONS, type RejectReason } from "../base/reasons.ts";
import { WORKER_REJECTED, type WorkerBlock } from "../os/scoreboard.ts";

const EVERY_MS = 1_000;

type Rejections = Partial<Record<RejectReason, number>>;

/** Who was turned away, and where. */
export interface Example {
  readonly host: string;
  readonly port: number;
  readonly listener: string;
}

export class RejectionLog {
  readonly #block: WorkerBlock;
  readonly #log: Logger;
  readonly #exampleOf: (reason: number) => Example | undefined;
  #said: readonly number[];
  #saidAt = Number.NEGATIVE_INFINITY;
  #errorAt = Number.NEGATIVE_INFINITY;
  #errorsSaid = 0;

  /** `exampleOf`: the last one, by its place in REJECT_REASONS. */
  constructor(block: WorkerBlock, log: Logger, exampleOf: (reason: number) => Example | undefined) {
    this.#block = block;
    this.#log = log;
    this.#exampleOf = exampleOf;
    this.#said = this.#counts();
  }

  /** Call it every tick. */
  look(now: number): void {
    if (now - this.#saidAt < EVERY_MS) return;
    const counts = this.#counts();
    const rejected: Rejections = {};
    const examples: Partial<Record<RejectReason, Example>> = {};
    let all = 0;
    for (const [index, reason] of REJECT_REASONS.entries()) {
      const more = (counts[index] ?? 0) - (this.#said[index] ?? 0);
      if (more === 0) continue;
      rejected[reason] = more;
      const example = this.#exampleOf(index);
      if (example) examples[reason] = example;
      all += more;
    }
    if (all === 0) return;
    this.#said = counts;
    this.#saidAt = now;
    const reasons = Object.entries(rejected).map(([reason, count]) => `${count} ${reason}`);
    this.#log.warn({ rejected, examples }, `connections rejected: ${reasons.join(", ")}`);
  }

  /** Accepting failed. */
  failed(now: number, errno: string, log: Logger): void {
    if (now - this.#errorAt < EVERY_MS) return;
    const count = this.#block.get("acceptErrors");
    const errors = count - this.#errorsSaid;
    this.#errorsSaid = count;
    this.#errorAt = now;
    log.warn({ errno, errors }, "accepting failed; it is tried again after a pause");
  }

  #counts(): number[] {
    return REJECT_REASONS.map((_, index) => this.#block.head[WORKER_REJECTED + index] ?? 0);
  }
}
