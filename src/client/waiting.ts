/** Calls that wait for a connection, the first come first; one may leave from anywhere. */
import type { Call } from "./call.ts";

export class WaitingCalls {
  #first: Call | undefined;
  #last: Call | undefined;
  size = 0;

  get first(): Call | undefined {
    return this.#first;
  }

  append(call: Call): void {
    this.size += 1;
    call.waiting = true;
    call.before = this.#last;
    if (this.#last) this.#last.behind = call;
    else this.#first = call;
    this.#last = call;
  }

  /** In front of all others: it has waited before. */
  prepend(call: Call): void {
    this.size += 1;
    call.waiting = true;
    call.behind = this.#first;
    if (this.#first) this.#first.before = call;
    else this.#last = call;
    this.#first = call;
  }

  /** Does nothing for a call that does not wait. */
  remove(call: Call): void {
    if (!call.waiting) return;
    this.size -= 1;
    call.waiting = false;
    if (call.before) call.before.behind = call.behind;
    else this.#first = call.behind;
    if (call.behind) call.behind.before = call.before;
    else this.#last = call.before;
    call.before = undefined;
    call.behind = undefined;
  }
}
