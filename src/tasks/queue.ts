/**
 * What waits in a pool: three lines, one for each priority, each in the order of arrival. Any task can be taken out at
 * once, wherever it stands, so a task that nobody wants any more costs no room.
 */

export const PRIORITIES = ["high", "normal", "low"] as const;
export type Priority = (typeof PRIORITIES)[number];

/** Place in PRIORITIES: the lower, the earlier. */
export const RANK: Readonly<Record<Priority, number>> = { high: 0, normal: 1, low: 2 };

/** What the queue needs of a task; the links are the queue's. */
export interface Queued<T> {
  readonly rank: number;
  /** What it is expected to take, ms. */
  readonly costMs: number;
  queued: boolean;
  before: T | undefined;
  behind: T | undefined;
}

interface Line<T> {
  first: T | undefined;
  last: T | undefined;
  costMs: number;
}

export class TaskQueue<T extends Queued<T>> {
  readonly #lines: readonly Line<T>[] = PRIORITIES.map(() => ({ first: undefined, last: undefined, costMs: 0 }));
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** What stands before a newcomer of this rank, ms of work. */
  costBefore(rank: number): number {
    let costMs = 0;
    for (let each = 0; each <= rank; each++) costMs += this.#line(each).costMs;
    return costMs;
  }

  push(task: T): void {
    const line = this.#line(task.rank);
    task.before = line.last;
    if (line.last) line.last.behind = task;
    else line.first = task;
    line.last = task;
    this.#entered(line, task);
  }

  /** Back to the head of its line. */
  unshift(task: T): void {
    const line = this.#line(task.rank);
    task.behind = line.first;
    if (line.first) line.first.before = task;
    else line.last = task;
    line.first = task;
    this.#entered(line, task);
  }

  /** Whose turn it is: the first of the highest priority. */
  first(): T | undefined {
    for (const { first } of this.#lines) if (first) return first;
    return undefined;
  }

  /** The first of each line. */
  heads(): T[] {
    return this.#lines.flatMap(({ first }) => first ?? []);
  }

  /** Who has to give way for a task of `rank`: the newest of the lowest priority below it. */
  lastBelow(rank: number): T | undefined {
    for (let each = PRIORITIES.length - 1; each > rank; each--) {
      const { last } = this.#line(each);
      if (last) return last;
    }
    return undefined;
  }

  remove(task: T): void {
    if (!task.queued) return;
    const line = this.#line(task.rank);
    if (task.before) task.before.behind = task.behind;
    else line.first = task.behind;
    if (task.behind) task.behind.before = task.before;
    else line.last = task.before;
    task.before = undefined;
    task.behind = undefined;
    task.queued = false;
    this.#size -= 1;
    // An empty line starts anew, so that no rounding error adds up.
    line.costMs = line.first ? line.costMs - task.costMs : 0;
  }

  #entered(line: Line<T>, task: T): void {
    task.queued = true;
    this.#size += 1;
    line.costMs += task.costMs;
  }

  #line(rank: number): Line<T> {
    return this.#lines[rank] as Line<T>;
  }
}
