/**
 * Those that hold something, the largest first. Tens of thousands may, and mostly a few of the first are wanted: each is
 * asked once, and a heap finds the next without sorting the rest.
 */
export interface Holding<T> {
  readonly holder: T;
  readonly bytes: number;
}

export function* largestFirst<T extends { readonly heldBytes: number }>(holders: Iterable<T>): Generator<Holding<T>> {
  const heap: Holding<T>[] = [];
  for (const holder of holders) {
    const bytes = holder.heldBytes;
    if (bytes > 0) heap.push({ holder, bytes });
  }
  for (let at = (heap.length >> 1) - 1; at >= 0; at--) sink(heap, at);
  while (heap.length > 0) {
    const first = heap[0] as Holding<T>;
    const last = heap.pop() as Holding<T>;
    if (heap.length > 0) {
      heap[0] = last;
      sink(heap, 0);
    }
    yield first;
  }
}

/** Brings the one at `at` below all that hold more. */
function sink<T>(heap: Holding<T>[], at: number): void {
  const sinking = heap[at] as Holding<T>;
  for (;;) {
    let below = 2 * at + 1;
    const [left, right] = [heap[below], heap[below + 1]];
    if (!left) break;
    if (right && right.bytes > left.bytes) below += 1;
    const larger = heap[below] as Holding<T>;
    if (larger.bytes <= sinking.bytes) break;
    heap[at] = larger;
    at = below;
  }
  heap[at] = sinking;
}
