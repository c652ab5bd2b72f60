/** A process that only logs to a file, for tests of what becomes of its lines. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { TestContext } from "node:test";

const LIBRARY = JSON.stringify(import.meta.resolve("#src/base/log.js"));

/** A process with `log`, `file`, `reopenLog`, `droppedLines`, that runs `body` and obeys words on its IPC channel. */
export function logging(t: TestContext, file: string, body: string): ChildProcess {
  const head = `import { createLogger, closeLog, reopenLog, droppedLines } from ${LIBRARY};
    const file = ${JSON.stringify(file)}; const log = createLogger({ level: "info", file });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", head + body], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

/** Its complete lines. */
export const linesOf = (file: string): string[] => readFileSync(file, "utf8").split("\n").slice(0, -1);
/** A line is one JSON object. */
export const isWhole = (line: string): boolean => {
  try {
    return typeof JSON.parse(line) === "object";
  } catch {
    return false;
  }
};
