/**
 * What a request has beyond its context once it uses it, or has ended before its handler: tasks in pools, calls of
 * clients, a signal of its own, a trace. Most requests never have one.
 */
import { HeadraceError } from "../base/errors.ts";
import type { Cancellable } from "../service/call.ts";
import type { Priority } from "../tasks/queue.ts";
import type { Task } from "../tasks/task.ts";
import type { RequestTrace } from "./request-trace.ts";

/** A pool, as far as a request's end concerns it. */
export interface Canceller {
  cancel(task: Task, error: unknown): void;
}

export class Flight {
  readonly priority: Priority;
  /** Why it is over before its handler is: what that still does is nobody's concern. */
  over: Error | undefined;
  /** Of one that is traced. */
  trace: RequestTrace | undefined;
  #tasks: Map<Canceller, Set<Task>> | undefined;
  #calls: Set<Cancellable> | undefined;
  #abort: AbortController | undefined;

  constructor(priority: Priority) {
    this.priority = priority;
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.over) this.#abort.abort(this.over);
    return this.#abort.signal;
  }

  /** Calls of clients, given up with the request. Each leaves by itself when it ends. */
  get calls(): Set<Cancellable> {
    this.#calls ??= new Set();
    return this.#calls;
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

  /** Its reply is there: the calls that it has not waited for are given up; its tasks and its signal are left alone. */
  answered(): void {
    if (!this.#calls?.size) return;
    const error = new HeadraceError("request-cancelled", "the request was answered before this call was");
    for (const call of this.#calls) call.cancel(error);
  }

  /** Nobody waits for the reply any more. */
  cancel(error: Error): void {
    this.over = error;
    this.trace?.cut(error);
    for (const [pool, tasks] of this.#tasks ?? []) for (const task of tasks) pool.cancel(task, error);
    for (const call of this.#calls ?? []) call.cancel(error);
    this.#abort?.abort(error);
  }
}
