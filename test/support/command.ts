/** The `headrace` command as a user runs it: a process of its own. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { within } from "./until.js";

const MAIN = fileURLToPath(import.meta.resolve("#src/cli/main.js"));

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** The program, if it is not this build's. */
  readonly main?: string;
  /** It must end within this. Default: 20 s. */
  readonly patienceMs?: number;
}

/** Only what a program needs, so that nothing of the machine's own settings gets into a test. */
function cleanEnvironment(more: NodeJS.ProcessEnv | undefined): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, HOME: process.env.HOME, ...more };
}

export function spawnCommand(
  args: readonly string[],
  { cwd, env, main = MAIN }: CommandOptions = {},
): ChildProcessByStdio<null, Readable, Readable> {
  return spawn(process.execPath, [main, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: cleanEnvironment(env),
    ...(cwd === undefined ? {} : { cwd }),
  });
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs it to its end. */
export async function headrace(args: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  const child = spawnCommand(args, options);
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  try {
    const all = Promise.all([exited, text(child.stdout), text(child.stderr)]);
    const [code, stdout, stderr] = await within(`headrace ${args.join(" ")} ends`, all, options.patienceMs);
    return { code, stdout, stderr };
  } finally {
    child.kill("SIGKILL");
  }
}
