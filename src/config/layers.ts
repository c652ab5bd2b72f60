/** The same group of options from several sources: the last that sets an option wins, and is the one to blame. */
import type { Place } from "./finding.ts";
import type { Path } from "./shown.ts";
import type { Source } from "./source.ts";

export interface Layer<T> {
  readonly source: Source;
  /** Where the group stands in the source. */
  readonly path: Path;
  readonly values: Partial<T> | undefined;
}

/** What the layers set together. */
export function merge<T extends object>(layers: readonly Layer<T>[]): Partial<T> {
  return Object.assign({}, ...layers.map(({ values }) => values));
}

/** Where `option` got the value it has after merging; undefined when no layer sets it. */
export function placeOf<T extends object>(layers: readonly Layer<T>[], option: keyof T & string): Place | undefined {
  const layer = layers.findLast(({ values }) => values && Object.hasOwn(values, option));
  return layer?.source.place([...layer.path, option]);
}
