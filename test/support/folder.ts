/** A folder of its own for one test, gone when the test ends. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";

export function makeFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "headrace-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes a module into `folder`; `line`, `defineService`, `defineUdpService` are in scope. Returns its path. */
export function writeService(folder: string, body: string, name = "service.mjs"): string {
  const path = join(folder, name);
  const library = import.meta.resolve("#src/index.js");
  writeFileSync(path, `import { defineService, defineUdpService, line } from ${JSON.stringify(library)};\n${body}\n`);
  return path;
}
