/**
 * The first `most` of any number of items, in order, in memory for `most` alone: a heap whose root is the last of those
 * that are kept. Numbers only, in typed arrays, so that a hundred thousand items leave no garbage.
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
    } else if (this.#most > 0 && signed < (this.#keys[0] as number)) {
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
      if ((this.#keys[parent] as number) >= key) break;
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
      if (child + 1 < this.#size && (this.#keys[child + 1] as number) > (this.#keys[child] as number)) child += 1;
      if ((this.#keys[child] as number) <= key) break;
      this.#put(at, this.#keys[child] as number, this.#items[child] as number);
      at = child;
    }
    this.#put(at, key, item);
  }

  #put(at: number, key: number, item: number): void {
    this.#keys[at] = key;
    this.#items[at] = item;
  }
}
