/** What `v8` in the configuration is on a worker's command line. The sizes are whole MiB by then. */
import type { V8Settings } from "../base/settings.ts";

const MiB = 1024 ** 2;

/** In the order in which V8 takes them: of two that contradict, the last holds. */
export function v8Arguments({ semiSpace, oldSpace, flags }: Readonly<Partial<V8Settings>>): string[] {
  return [
    ...(semiSpace === undefined ? [] : [`--max-semi-space-size=${semiSpace / MiB}`]),
    ...(oldSpace === undefined ? [] : [`--max-old-space-size=${oldSpace / MiB}`]),
    ...(flags ?? []),
  ];
}
