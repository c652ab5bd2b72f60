/** Long work in short slices: between two of them the event loop serves everybody else. */

/** What one turn of the loop may take, ms. */
export const SLICE_MS = 8;

/** Resolves in the next turn of the loop: never inside a round of the engine. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A function that has `work` done in the next turn of the loop: once, however often it is called until then. */
export function oncePerTurn(work: () => void): () => void {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    setImmediate(() => {
      due = false;
      work();
    });
  };
}

/** Calls `each` for all items, as many in one turn as fit. */
export async function inSlices<T>(items: Iterable<T>, each: (item: T) => void): Promise<void> {
  let until = performance.now() + SLICE_MS;
  for (const item of items) {
    each(item);
    if (performance.now() < until) continue;
    await nextTurn();
    until = performance.now() + SLICE_MS;
  }
}
