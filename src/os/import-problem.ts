/** What can be wrong with a module that the user wrote, told apart by what importing it threw. */
import { spawnSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { messageOf } from "../base/errors.ts";

const TYPES_SINCE = "22.18";
const THREW = "threw while it was loaded";

/** Where in the module it happened: " (game.js:3)", or nothing when `trace` does not say. */
function placeIn(path: string, given: string, trace: string): string {
  const name = [pathToFileURL(path).href, path].find((candidate) => trace.includes(`${candidate}:`));
  const line = name && /^\d+/.exec(trace.slice(trace.indexOf(`${name}:`) + name.length + 1))?.[0];
  return line ? ` (${given}:${line})` : "";
}

/** A SyntaxError caught from import() does not say where; `node --check` does, and runs nothing. */
function syntaxTrace(path: string): string {
  return spawnSync(process.execPath, ["--check", path], { encoding: "utf8" }).stderr ?? "";
}

/** One sentence without its subject, which is the module. `given` is its path as the user wrote it. */
export function importProblem(path: string, given: string, error: unknown): string {
  const { code, stack = "", name } = error instanceof Error ? (error as NodeJS.ErrnoException) : {};
  const text = messageOf(error).split("\n", 1).join();
  if (code === "ERR_UNKNOWN_FILE_EXTENSION" && /\.[mc]?ts$/.test(path)) {
    return `TypeScript needs Node ${TYPES_SINCE} or later (this is ${process.versions.node}); compile it to JavaScript or use a newer Node`;
  }
  if (code === "ERR_MODULE_NOT_FOUND") return `imports something that does not exist: ${text}`;
  // By its name: an error of another thread has no class.
  if (name === "SyntaxError") return `is not valid JavaScript${placeIn(path, given, syntaxTrace(path))}: ${text}`;
  const place = placeIn(path, given, stack);
  // They found the fault themselves and name the property.
  if (/^define(Service|Pool): /.test(text)) return `${text}${place}`;
  return `${THREW}${place}: ${text}`;
}

/** Its own code ran and failed, perhaps for want of something that will be there the next time: no fault of usage. */
export function importCode(problem: string): "service-failed" | "service-invalid" {
  return problem.startsWith(THREW) ? "service-failed" : "service-invalid";
}
