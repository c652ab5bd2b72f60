/** Why a pool's module cannot be used, in one sentence for people. */
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { importCode, importProblem } from "../os/import-problem.ts";
import type { ThrownError } from "./messages.ts";

function invalid(pool: string, file: string, problem: string, cause?: unknown): HeadraceError {
  const options = cause === undefined ? {} : { cause };
  return new HeadraceError("service-invalid", `pool ${pool}: module ${file} ${problem}`, { file }, options);
}

/** Throws `service-invalid` when there is no such file. */
export function checkModule(pool: string, module: URL): void {
  const file = fileURLToPath(module);
  try {
    if (!statSync(file).isFile()) throw invalid(pool, file, "is not a file");
  } catch (error) {
    if (error instanceof HeadraceError) throw error;
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw invalid(pool, file, missing ? "does not exist" : `cannot be read: ${messageOf(error)}`, error);
  }
}

/** It threw, in the thread that loaded it. */
export function failedModule(pool: string, module: URL, thrown: ThrownError): HeadraceError {
  const file = fileURLToPath(module);
  const cause = Object.assign(new Error(thrown.message), thrown);
  const problem = importProblem(file, file, cause);
  return new HeadraceError(importCode(problem), `pool ${pool}: module ${file} ${problem}`, { file }, { cause });
}

/** The thread ended over it. */
export function deadlyModule(pool: string, module: URL, error: unknown): HeadraceError {
  return invalid(pool, fileURLToPath(module), `ended its thread while it was loaded: ${messageOf(error)}`, error);
}

export function slowModule(pool: string, module: URL, withinMs: number): HeadraceError {
  const problem = `is not loaded after ${withinMs / 1000} s (is there an await that never ends?)`;
  return invalid(pool, fileURLToPath(module), problem);
}

export function emptyModule(pool: string, module: URL): HeadraceError {
  return invalid(pool, fileURLToPath(module), "exports no function; each exported function is a task");
}
