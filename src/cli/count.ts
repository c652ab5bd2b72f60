/** A number on the command line. */
import { HeadraceError } from "../base/errors.ts";
import { type NumericKind, Wrong } from "../config/kinds.ts";

/** Throws `usage` for anything but what `kind` allows. */
export function readCount(command: string, given: string, kind: NumericKind<number>): number {
  const value = kind.read(given);
  if (!(value instanceof Wrong)) return value;
  const allowed = value.allowed ?? kind.allowed;
  throw new HeadraceError("usage", `${command}: ${value.problem}; allowed: ${allowed}`, { given, allowed });
}
