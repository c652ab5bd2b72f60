/** A folder of its own for one test, with a configuration file in it, gone when the test ends. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import type { Config, Flags } from "#src/config/config.js";
import { loadConfig } from "#src/config/load.js";

export interface Given {
  /** Text of headrace.yaml; absent: there is no file. */
  readonly yaml?: string | Uint8Array;
  /** The value of `--config`. */
  readonly file?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly flags?: Flags;
}

export function makeFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "headrace-config-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Loads what is given, in `folder` or a new one. */
export function load(t: TestContext, given: Given, folder: string = makeFolder(t)): Config {
  if (given.yaml !== undefined) writeFileSync(join(folder, "headrace.yaml"), given.yaml);
  return loadConfig({ file: given.file, env: given.env ?? {}, flags: given.flags ?? {}, cwd: folder });
}

/** The error that loading ends with. */
export function refusal(t: TestContext, given: Given): HeadraceError {
  try {
    load(t, given);
  } catch (error) {
    assert.ok(error instanceof HeadraceError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: `accepted: ${JSON.stringify(given)}` });
}
