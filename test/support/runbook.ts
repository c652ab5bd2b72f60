/** The scripts of deploy/runbook, run as people run them: by name, with the server's control socket in the environment. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { packageRoot } from "#src/os/addon.js";
import type { Outcome } from "./command.js";
import { within } from "./until.js";

/** A profile, a change and a wait for clients take their time. */
const SCRIPT_MS = 120_000;

export const RUNBOOK: string = join(packageRoot(), "deploy", "runbook");

export interface RunningScript {
  readonly pid: number;
  readonly ended: Promise<Outcome>;
}

/** `env` is added to what every program needs; `control` is where the server is. */
export function startScript(
  name: string,
  args: readonly string[],
  { control, env = {}, cwd }: { control?: string; env?: NodeJS.ProcessEnv; cwd?: string } = {},
): RunningScript {
  const { PATH, HOME } = process.env;
  const child = spawn(join(RUNBOOK, name), args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH, HOME, ...(control === undefined ? {} : { HEADRACE_CONTROL: control }), ...env },
    ...(cwd === undefined ? {} : { cwd }),
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const all = Promise.all([exited, text(child.stdout), text(child.stderr)]);
  const ended = within(`${name} ${args.join(" ")} ends`, all, SCRIPT_MS)
    .then(([code, stdout, stderr]) => ({ code, stdout, stderr }))
    .finally(() => child.kill("SIGKILL"));
  return { pid: child.pid ?? 0, ended };
}

/** Runs one to its end. */
export function runScript(...given: Parameters<typeof startScript>): Promise<Outcome> {
  return startScript(...given).ended;
}
