/**
 * Finds the service that a listener names: a built-in, or the default export of the user's module. What can be
 * wrong with a module is told apart here, in one sentence each; what it threw is kept as the error's `cause`.
 */
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { ServiceRef } from "../config/config.ts";
import { BUILTIN_SERVICES } from "../service/builtins.ts";
import { type AnyService, isService } from "../service/define.ts";

const TYPES_SINCE = "22.18";
const THREW = "threw while it was loaded";

function invalid(given: string, problem: string, cause?: unknown): HeadraceError {
  const options = cause === undefined ? {} : { cause };
  return new HeadraceError("service-invalid", `service ${given}: ${problem}`, { file: given }, options);
}

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

function importProblem(path: string, given: string, error: unknown): string {
  const { code, stack = "" } = error instanceof Error ? (error as NodeJS.ErrnoException) : {};
  const text = messageOf(error).split("\n", 1).join();
  if (code === "ERR_UNKNOWN_FILE_EXTENSION" && /\.[mc]?ts$/.test(path)) {
    return `TypeScript needs Node ${TYPES_SINCE} or later (this is ${process.versions.node}); compile it to JavaScript or use a newer Node`;
  }
  if (code === "ERR_MODULE_NOT_FOUND") return `imports something that does not exist: ${text}`;
  if (error instanceof SyntaxError) return `is not valid JavaScript${placeIn(path, given, syntaxTrace(path))}: ${text}`;
  const place = placeIn(path, given, stack);
  // defineService found the fault itself and names the property.
  if (text.startsWith("defineService: ")) return `${text}${place}`;
  return `${THREW}${place}: ${text}`;
}

function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "a plain object";
  return typeof value === "function" && /^class\b/.test(String(value)) ? "a class" : `a ${typeof value}`;
}

function checkFile(path: string, given: string): void {
  try {
    if (!statSync(path).isFile()) throw invalid(given, "is not a file");
  } catch (error) {
    if (error instanceof HeadraceError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw invalid(given, code === "ENOENT" ? "the file does not exist" : `cannot be read: ${messageOf(error)}`, error);
  }
}

/** Throws `service-invalid`, or `service-failed` when the module itself throws. */
export async function loadService(ref: ServiceRef): Promise<AnyService> {
  if (ref.kind === "builtin") {
    const service = BUILTIN_SERVICES.get(ref.name);
    if (service) return service;
    throw invalid(ref.name, `no such built-in; there are ${[...BUILTIN_SERVICES.keys()].join(", ")}`);
  }
  const { path, given } = ref;
  checkFile(path, given);
  let module: { readonly default?: unknown };
  try {
    module = await import(pathToFileURL(path).href);
  } catch (error) {
    const problem = importProblem(path, given, error);
    // Its own code ran and failed, perhaps for want of something that will be there the next time: no fault of usage.
    const code = problem.startsWith(THREW) ? "service-failed" : "service-invalid";
    throw new HeadraceError(code, `service ${given}: ${problem}`, { file: given }, { cause: error });
  }
  const service = module.default;
  if (isService(service)) return service;
  const allowed = "export default defineService({ … })";
  if (service === undefined) throw invalid(given, `has no default export; expected: ${allowed}`);
  throw invalid(given, `its default export is ${describe(service)}, not made by defineService; expected: ${allowed}`);
}
