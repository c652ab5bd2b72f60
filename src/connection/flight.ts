/**
 * What a request needs beyond its context once it does not end within its handler: a deadline, tasks in pools, a signal
 * of its own, its message for a `busy` reply. Most requests never have one.
 */
import type { Priority } from "../tasks/queue.ts";
import type { Task } from "../tasks/task.ts";
import type { Place } from "./ordered.ts";

/** A pool, as far as a request's end concerns it. */
export interface Canceller {
  cancel(task: Task, error: unknown): void;
}

export class Flight {
  readonly priority: Priority;
  /** Engine clock, ms; Infinity: there is none. */
  readonly deadlineAt: number;
  /** For the service's `busy`; undefined when that does not want it. */
  message: unknown;
  /** Its place among ordered replies. */
  place: Place | undefined;
  /** Its handler has returned a promise, and is not done. */
  waiting = false;
  /** Answered by its deadline: what its handler still does is nobody's concern. */
  expired = false;
  #tasks: Map<Canceller, Set<Task>> | undefined;
  #abort: AbortController | undefined;

  constructor(priority: Priority, deadlineAt: number, message: unknown) {
    this.priority = priority;
    this.deadlineAt = deadlineAt;
    this.message = message;
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    return this.#abort.signal;
  }

  /** Cancelled with the request. */
  add(task: Task, pool: Canceller): void {
    if (task.ended) return;
    this.#tasks ??= new Map();
    const tasks = this.#tasks.get(pool) ?? new Set();
    this.#tasks.set(pool, tasks);
    task.owner = tasks;
    tasks.add(task);
  }

  /** Nobody waits for the reply any more. */
  cancel(error: Error): void {
    for (const [pool, tasks] of this.#tasks ?? []) for (const task of tasks) pool.cancel(task, error);
    this.#abort?.abort(error);
  }
}
