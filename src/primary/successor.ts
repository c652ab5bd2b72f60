/**
 * Starts the next generation's primary from what is on disk now, so that it is nobody's child: it becomes the main
 * process of the service, and systemd waits at a stop only for processes whose parent it is itself (a main process
 * that it takes for a stranger's child is killed without a SIGTERM). Hence the shell in between, which ends at once.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { text } from "node:stream/consumers";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { HANDOVER_VARIABLE } from "../control/handover-messages.ts";
import { closeDescriptor, openChannel } from "../os/descriptors.ts";
import type { CommandAsGiven } from "./working-directory.ts";

/** How this primary was started, to be repeated. */
export interface Launch {
  readonly command: CommandAsGiven;
  /** Logical: links are followed anew. */
  readonly directory: string;
  /** As at the first start. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

const CHECK_MS = 20_000;
const SHELL_MS = 5_000;
/** What the shell is told: start the words, say which process that is, end. */
const SCRIPT = '"$@" 4>&- & echo $! >&4';
const LONGEST_REASON = 600;

function failed(why: string): HeadraceError {
  return new HeadraceError("change-failed", why);
}

/** Runs the next release's own `check` with the same arguments. Throws with what it says. */
export async function checkSuccessor({ command, directory, env }: Launch, signal: AbortSignal): Promise<void> {
  const args = command.args.map((word, index) => (index === command.args.indexOf("run") ? "check" : word));
  const child = spawn(command.node, [...command.execArgv, command.entry, ...args], {
    cwd: directory,
    env,
    stdio: ["ignore", "ignore", "pipe"],
    timeout: CHECK_MS,
    killSignal: "SIGKILL",
    signal,
  });
  const [code, said] = await outcomeOf(child, 2, directory);
  if (code === 0) return;
  const silent = child.killed ? `it did not end within ${CHECK_MS / 1000} s` : `it ended with ${code ?? "a signal"}`;
  const reason = said.trim().slice(0, LONGEST_REASON) || silent;
  throw failed(`the check of the new release: ${reason}`);
}

/** Its exit code and everything it wrote to descriptor `fd`. A process that cannot be started has no streams. */
async function outcomeOf(child: ChildProcess, fd: number, directory: string): Promise<[number | null, string]> {
  try {
    const exited = once(child, "exit") as Promise<[number | null]>;
    const stream = child.stdio?.[fd];
    const [[code], said] = await Promise.all([exited, stream ? text(stream as NodeJS.ReadableStream) : ""]);
    return [code, said];
  } catch (error) {
    const gone = existsSync(directory) ? "" : ` (the working directory ${directory} does not exist any more)`;
    throw failed(`the new release cannot be started: ${messageOf(error)}${gone}`);
  }
}

export interface Successor {
  readonly pid: number;
  /** Our end of the channel, the caller's. */
  readonly channel: number;
}

export async function startSuccessor({ command, directory, env }: Launch): Promise<Successor> {
  const [own, theirs] = openChannel();
  try {
    const words = [command.node, ...command.execArgv, command.entry, ...command.args];
    const shell = spawn("/bin/sh", ["-c", SCRIPT, "sh", ...words], {
      cwd: directory,
      env: { ...env, [HANDOVER_VARIABLE]: "1" },
      stdio: ["ignore", "inherit", "inherit", theirs, "pipe"],
      timeout: SHELL_MS,
    });
    const [code, said] = await outcomeOf(shell, 4, directory);
    const pid = Number(said.trim());
    if (code !== 0 || !Number.isInteger(pid) || pid <= 0) throw failed("the new primary could not be started");
    return { pid, channel: own };
  } catch (error) {
    closeDescriptor(own);
    throw error;
  } finally {
    closeDescriptor(theirs);
  }
}
