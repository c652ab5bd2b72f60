/**
 * The first `most` of any number of items, in order, in memory for `most` alone: a heap whose root is the last of those
 * that are kept. Of items with one key the smaller comes first, so that pages do not overlap. Numbers only, in typed
 * arrays, so that a hundred thousand items leave no garbage.
 */
export class First {
  readonly #most: number;
  /** 1: small keys come first; -1: large ones do. */
  readonly #sign: 1 | -1;
  #keys: Float64Array = new Float64Array(64);
  #items: Int32Array = new Int32Array(64);
  #size = 0;

  constructor(most: number, order: "asc" | "desc") {
    this.#most = most;
    this.#sign = order === "asc" ? 1 : -1;
  }

  offer(key: number, item: number): void {
    const signed = key * this.#sign;
    if (this.#size < this.#most) {
      this.#grow();
      this.#rise(this.#size++, signed, item);
    } else if (this.#most > 0 && this.#isAfter(0, signed, item)) {
      this.#sink(signed, item);
    }
  }

  /** All that were kept, in order. Empties it. */
  take(): { readonly keys: number[]; readonly items: number[] } {
    const keys = new Array<number>(this.#size);
    const items = new Array<number>(this.#size);
    while (this.#size > 0) {
      const at = --this.#size;
      keys[at] = (this.#keys[0] as number) * this.#sign;
      items[at] = this.#items[0] as number;
      this.#sink(this.#keys[at] as number, this.#items[at] as number);
    }
    return { keys, items };
  }

  #grow(): void {
    if (this.#size < this.#keys.length) return;
    const [keys, items] = [new Float64Array(this.#size * 2), new Int32Array(this.#size * 2)];
    keys.set(this.#keys);
    items.set(this.#items);
    this.#keys = keys;
    this.#items = items;
  }

  /** Puts it where `at` is free, or above. */
  #rise(from: number, key: number, item: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#isAfter(parent, key, item)) break;
      this.#put(at, this.#keys[parent] as number, this.#items[parent] as number);
      at = parent;
    }
    this.#put(at, key, item);
  }

  /** Puts it in place of the root, or below. */
  #sink(key: number, item: number): void {
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      const right = child + 1;
      if (right < this.#size && this.#isAfter(right, this.#keys[child] as number, this.#items[child] as number))
        child = right;
      if (!this.#isAfter(child, key, item)) break;
      this.#put(at, this.#keys[child] as number, this.#items[child] as number);
      at = child;
    }
    this.#put(at, key, item);
  }

  /** What stands at `at` comes after `key` and `item`. */
  #isAfter(at: number, key: number, item: number): boolean {
    const other = this.#keys[at] as number;
    return other > key || (other === key && (this.#items[at] as number) > item);
  }

  #put(at: number, key: number, item: number): void {
    this.#keys[at] = key;
    this.#items[at] = item;
  }
}
