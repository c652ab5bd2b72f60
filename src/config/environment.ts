/** Environment variables: each option outside of `listeners` has one, named after its path. */
import { ROWS } from "./rows.ts";
import type { Path } from "./shown.ts";

export const VARIABLE_PREFIX = "HEADRACE_";

/** `socket.noDelay` is HEADRACE_SOCKET_NO_DELAY. */
export function variableOf(path: Path): string {
  const words = path.map((key) => String(key).replaceAll(/[A-Z]/g, (letter) => `_${letter}`));
  return VARIABLE_PREFIX + words.join("_").toUpperCase();
}

/** The option's path by variable. HEADRACE_CONFIG, which names the file, is no option. */
export const VARIABLES: ReadonlyMap<string, readonly string[]> = new Map(
  ROWS.filter(({ kind, path }) => kind === "option" && path[0] !== "listeners").map(({ path }) => [
    variableOf(path),
    path,
  ]),
);
