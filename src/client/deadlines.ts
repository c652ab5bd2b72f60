/**
 * The deadlines of a client's calls, exact to the millisecond: a heap and one timer for its top. A call that ends
 * before its deadline leaves the timer as it is, so most calls cost none. The timer keeps the process alive while there
 * are calls, and only then.
 */
import type { Call } from "./call.ts";

/** setTimeout's own bound. */
const LONGEST_MS = 2 ** 31 - 1;

export class CallDeadlines {
  readonly #heap: Call[] = [];
  readonly #expired: (call: Call) => void;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = 0;

  constructor(expired: (call: Call) => void) {
    this.#expired = expired;
  }

  get size(): number {
    return this.#heap.length;
  }

  add(call: Call): void {
    this.#heap.push(call);
    this.#up(call, this.#heap.length - 1);
    if (!this.#timer || call.deadlineAt < this.#timerAt) this.#arm(performance.now());
    else if (this.#heap.length === 1) this.#timer.ref();
  }

  /** Does nothing for a call that has no place here. */
  remove(call: Call): void {
    const at = call.place;
    if (at < 0) return;
    call.place = -1;
    const last = this.#heap.pop() as Call;
    if (last !== call) {
      this.#up(last, at);
      this.#down(last, last.place);
    }
    if (this.#heap.length === 0) this.#timer?.unref();
  }

  #fire(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (let first = this.#heap[0]; first && first.deadlineAt <= now; first = this.#heap[0]) {
      this.remove(first);
      this.#expired(first);
    }
    if (this.#heap.length > 0) this.#arm(now);
  }

  #arm(now: number): void {
    clearTimeout(this.#timer);
    const first = this.#heap[0] as Call;
    this.#timerAt = first.deadlineAt;
    // Rounded up: a timer that fires before the deadline would only have to be set again.
    const ms = Math.min(LONGEST_MS, Math.max(1, Math.ceil(first.deadlineAt - now)));
    this.#timer = setTimeout(() => this.#fire(), ms);
  }

  #up(call: Call, at: number): void {
    const heap = this.#heap;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Call;
      if (above.deadlineAt <= call.deadlineAt) break;
      heap[at] = above;
      above.place = at;
      at = parent;
    }
    heap[at] = call;
    call.place = at;
  }

  #down(call: Call, at: number): void {
    const heap = this.#heap;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const [left, right] = [heap[child] as Call, heap[child + 1]];
      if (right && right.deadlineAt < left.deadlineAt) child += 1;
      const below = heap[child] as Call;
      if (below.deadlineAt >= call.deadlineAt) break;
      heap[at] = below;
      below.place = at;
      at = child;
    }
    heap[at] = call;
    call.place = at;
  }
}
