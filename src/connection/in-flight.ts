/**
 * The requests of a worker that wait for their replies, in the order in which they began: what the age of the oldest
 * is read from, and how long each took. A request has a ticket, a number; taking one and giving it back allocates
 * nothing, but for the table's growth. Each owner (a connection) has a chain of its own through its tickets, so that
 * none outlives it.
 */

/** In place of a ticket. */
export const NO_TICKET = -1;
const FIRST_SIZE = 64;

export class InFlight {
  #size = FIRST_SIZE;
  #began: Float64Array = new Float64Array(FIRST_SIZE);
  /** Of all, by age. Of a free ticket: `#newer` is the next free one. */
  #older: Int32Array = new Int32Array(FIRST_SIZE);
  #newer: Int32Array = new Int32Array(FIRST_SIZE);
  /** Of one owner's. */
  #before: Int32Array = new Int32Array(FIRST_SIZE);
  #after: Int32Array = new Int32Array(FIRST_SIZE);
  #free = NO_TICKET;
  /** Tickets that were ever taken. */
  #used = 0;
  #oldest = NO_TICKET;
  #newest = NO_TICKET;
  /** Tickets taken now. */
  count = 0;

  /** A ticket for a request that began at `began` (ms), in front of the chain of its owner; `first`: that chain. */
  take(began: number, first: number): number {
    const ticket = this.#next();
    this.#began[ticket] = began;
    this.#older[ticket] = this.#newest;
    this.#newer[ticket] = NO_TICKET;
    if (this.#newest === NO_TICKET) this.#oldest = ticket;
    else this.#newer[this.#newest] = ticket;
    this.#newest = ticket;
    this.#before[ticket] = NO_TICKET;
    this.#after[ticket] = first;
    if (first !== NO_TICKET) this.#before[first] = ticket;
    this.count += 1;
    return ticket;
  }

  /** Gives a ticket back. Returns its owner's chain without it. */
  give(ticket: number, first: number): number {
    const older = this.#older[ticket] as number;
    const newer = this.#newer[ticket] as number;
    if (older === NO_TICKET) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer === NO_TICKET) this.#newest = older;
    else this.#older[newer] = older;
    const before = this.#before[ticket] as number;
    const after = this.#after[ticket] as number;
    if (before !== NO_TICKET) this.#after[before] = after;
    if (after !== NO_TICKET) this.#before[after] = before;
    this.#newer[ticket] = this.#free;
    this.#free = ticket;
    this.count -= 1;
    return ticket === first ? after : first;
  }

  /** When its request began, ms. */
  began(ticket: number): number {
    return this.#began[ticket] as number;
  }

  /** When the oldest began, ms; undefined when there is none. */
  get oldest(): number | undefined {
    return this.#oldest === NO_TICKET ? undefined : this.#began[this.#oldest];
  }

  #next(): number {
    const free = this.#free;
    if (free !== NO_TICKET) {
      this.#free = this.#newer[free] as number;
      return free;
    }
    if (this.#used === this.#size) this.#grow();
    return this.#used++;
  }

  #grow(): void {
    this.#size *= 2;
    const grown = (from: Int32Array): Int32Array => {
      const into = new Int32Array(this.#size);
      into.set(from);
      return into;
    };
    const began = new Float64Array(this.#size);
    began.set(this.#began);
    this.#began = began;
    this.#older = grown(this.#older);
    this.#newer = grown(this.#newer);
    this.#before = grown(this.#before);
    this.#after = grown(this.#after);
  }
}
