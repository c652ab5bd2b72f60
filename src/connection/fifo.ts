/**
 * First in, first out, at a constant cost however long it is: `Array.shift` moves everything that stands behind. What was
 * taken is forgotten at once; its places are given back when they are half of the list.
 */
const LEAST_PLACES = 32;

export class Fifo<T> {
  #items: (T | undefined)[] = [];
  #from = 0;

  get length(): number {
    return this.#items.length - this.#from;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  /** The oldest. */
  shift(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#from] as T;
    this.#items[this.#from] = undefined;
    this.#from += 1;
    if (this.#from >= LEAST_PLACES && this.#from * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#from);
      this.#from = 0;
    }
    return item;
  }

  /** All of them, the oldest first. */
  list(): T[] {
    return this.#items.slice(this.#from) as T[];
  }
}
