/** A small program in a process of its own: what must not happen to the test's process, happens there. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { TestContext } from "node:test";
import { within } from "./until.js";

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function outcomeOf(t: TestContext, command: string, args: readonly string[]): Promise<Outcome> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [code, signal] = (await within(`${command} to end`, once(child, "close"))) as [
    number | null,
    NodeJS.Signals | null,
  ];
  return { code, signal, stdout, stderr };
}

/** Module specifiers of this package's code, for a script: `#src/…` has no meaning outside of the package. */
export function moduleUrl(specifier: string): string {
  return JSON.stringify(import.meta.resolve(specifier));
}

/** Runs an ES module given as text. `prelude` is a shell command before it, such as `ulimit -n 40`. */
export function runScript(t: TestContext, source: string, prelude = "true"): Promise<Outcome> {
  const command = `${prelude}; exec "$0" --input-type=module --eval "$1"`;
  return outcomeOf(t, "/bin/sh", ["-c", command, process.execPath, source]);
}

export function runPython(t: TestContext, source: string, ...args: string[]): Promise<Outcome> {
  return outcomeOf(t, "python3", ["-c", source, ...args]);
}
