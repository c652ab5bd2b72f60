/** One task of a pool: what it is, what it waits for, and how it ended. It ends once, whoever is first to end it. */
import { type Priority, type Queued, RANK } from "./queue.ts";

/** A function of the pool's module. */
export interface Kind {
  readonly name: string;
  /** Its place in the module; undefined until that is loaded. */
  index: number | undefined;
  /** What one takes, as measured lately, ms. */
  costMs: number;
  /** At most so long it took lately, and whatever was in the same batch, ms. */
  mostMs: number;
  measured: boolean;
}

export interface TaskOptions {
  /** Takes the task out of the queue; the result of one that runs already is dropped. */
  readonly signal?: AbortSignal;
  /** Default: normal. */
  readonly priority?: Priority;
}

export class Task implements Queued<Task> {
  readonly kind: Kind;
  /** Prepared for a parcel. */
  readonly args: readonly unknown[];
  readonly rank: number;
  readonly costMs: number;
  /** When it came, performance.now(). */
  readonly at: number;
  /** After this it is not begun any more, performance.now(). */
  readonly deadlineAt: number;
  readonly promise: Promise<unknown>;
  queued = false;
  before: Task | undefined;
  behind: Task | undefined;
  ended = false;
  /** Who may want to cancel it; it leaves this set at its end. */
  owner: Set<Task> | undefined;
  #resolve: (value: unknown) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;

  constructor(kind: Kind, args: readonly unknown[], priority: Priority, at: number, deadlineAt: number) {
    this.kind = kind;
    this.args = args;
    this.rank = RANK[priority];
    this.costMs = kind.costMs;
    this.at = at;
    this.deadlineAt = deadlineAt;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** `onAbort` is called when the signal is aborted before the task has ended. */
  listen(signal: AbortSignal, onAbort: () => void): void {
    this.#signal = signal;
    this.#onAbort = onAbort;
    signal.addEventListener("abort", onAbort, { once: true });
  }

  succeed(value: unknown): void {
    if (this.#end()) this.#resolve(value);
  }

  fail(error: unknown): void {
    if (this.#end()) this.#reject(error);
  }

  #end(): boolean {
    if (this.ended) return false;
    this.ended = true;
    this.owner?.delete(this);
    if (this.#onAbort) this.#signal?.removeEventListener("abort", this.#onAbort);
    return true;
  }
}
