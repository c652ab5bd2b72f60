/** Turns the addon's negative errnos into errors and names. */
import { getSystemErrorName } from "node:util";
import { HeadraceError } from "../base/errors.ts";

/** "ECONNRESET" for -104 or 104. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-Math.abs(errno));
  } catch {
    return `errno ${Math.abs(errno)}`;
  }
}

/** Returns `result`, or throws a `system` error that names `what` when it is a negative errno. */
export function check<T>(result: T | number, what: string): T {
  if (typeof result === "number" && result < 0) {
    const errno = errnoName(result);
    throw new HeadraceError("system", `${what} failed: ${errno}`, { errno });
  }
  return result as T;
}
