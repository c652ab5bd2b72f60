/**
 * Medians, spreads and ratios of a handful of runs. A ratio is taken inside each round, where both peers ran within
 * seconds of each other on the same machine in the same mood, and only then is the median taken.
 */

export interface Spread {
  median: number;
  min: number;
  max: number;
  /** How many values it summarizes. */
  count: number;
}

/** Undefined without values. */
export function spread(values: readonly number[]): Spread | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const min = sorted[0];
  const max = sorted.at(-1);
  if (min === undefined || max === undefined) return undefined;
  const upper = sorted[sorted.length >> 1] ?? max;
  const lower = sorted[(sorted.length - 1) >> 1] ?? min;
  return { median: (lower + upper) / 2, min, max, count: sorted.length };
}

export interface Ratio {
  /** Of the ratios of each round. */
  byRound: Spread;
  /** The ratio of the two medians, beside it: far from `byRound.median` means that the machine was restless. */
  ofMedians: number;
}

/** How `ours` stands to `theirs`, both by round. Rounds in which either is missing are left out. */
export function ratio(
  ours: readonly (number | undefined)[],
  theirs: readonly (number | undefined)[],
): Ratio | undefined {
  const pairs: [number, number][] = [];
  for (const [round, our] of ours.entries()) {
    const their = theirs[round];
    if (our !== undefined && their !== undefined && their > 0) pairs.push([our, their]);
  }
  const byRound = spread(pairs.map(([our, their]) => our / their));
  const ourSpread = spread(pairs.map(([our]) => our));
  const theirSpread = spread(pairs.map(([, their]) => their));
  if (byRound === undefined || ourSpread === undefined || theirSpread === undefined) return undefined;
  return { byRound, ofMedians: ourSpread.median / theirSpread.median };
}
