/** The known name that a mistyped one most likely means. */

/** Letter case and separators are no difference: `no_delay` is near `noDelay`. */
function plain(name: string): string {
  return name.slice(0, 64).toLowerCase().replaceAll(/[-_]/g, "");
}

/** Levenshtein distance, counting a swap of neighbours as one step. */
function distance(a: string, b: string): number {
  let older: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let steps = Math.min((row[j - 1] ?? 0) + 1, (last[j] ?? 0) + 1, (last[j - 1] ?? 0) + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) steps = Math.min(steps, (older[j - 2] ?? 0) + 1);
      row.push(steps);
    }
    older = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** The closest of `known`, or undefined when it differs in more than `tolerance` (a share of its letters). */
export function nearest(name: string, known: readonly string[], tolerance = 0.4): string | undefined {
  let best: string | undefined;
  let fewest = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const steps = distance(plain(name), plain(candidate));
    if (steps < fewest && steps <= plain(candidate).length * tolerance) {
      best = candidate;
      fewest = steps;
    }
  }
  return best;
}
