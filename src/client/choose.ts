/**
 * Which of several targets gets a call: the less loaded of two that are drawn at random. That spreads as well as asking
 * all of them, and does not send every client to the same one.
 */

interface Loaded {
  /** Calls under way. */
  readonly load: number;
}

/** One for which `fits`, if there is any. */
export function choose<T extends Loaded>(
  targets: readonly T[],
  fits: (target: T) => boolean,
  random: () => number = Math.random,
): T | undefined {
  const count = targets.length;
  if (count === 1) return pick(targets, 0, fits);
  const first = Math.floor(random() * count);
  const second = (first + 1 + Math.floor(random() * (count - 1))) % count;
  const [one, other] = [pick(targets, first, fits), pick(targets, second, fits)];
  if (one && other) return other.load < one.load ? other : one;
  if (one ?? other) return one ?? other;
  for (let step = 1; step < count; step++) {
    const next = pick(targets, (first + step) % count, fits);
    if (next) return next;
  }
  return undefined;
}

function pick<T>(targets: readonly T[], index: number, fits: (target: T) => boolean): T | undefined {
  const target = targets[index] as T;
  return fits(target) ? target : undefined;
}
