/** Replies that must leave in the order of their requests, however their handlers finish. */

/** A place in the order; `conclude` is set when the handler has finished. */
export interface Place {
  conclude: (() => void) | undefined;
}

export class OrderedReplies {
  readonly #places: Place[] = [];
  /** Of encoded replies that wait for their turn. */
  bytes = 0;
  /** Places that had their outcome from the beginning: no handler runs for them. */
  ready = 0;

  get empty(): boolean {
    return this.#places.length === 0;
  }

  /** The last place. */
  add(): Place {
    const place: Place = { conclude: undefined };
    this.#places.push(place);
    return place;
  }

  /** Takes out the first place and returns what concludes it, if its handler has finished. */
  next(): (() => void) | undefined {
    const conclude = this.#places[0]?.conclude;
    if (conclude) this.#places.shift();
    return conclude;
  }
}
