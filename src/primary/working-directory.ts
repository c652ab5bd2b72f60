/**
 * How this process was called, with the symbolic links that its caller saw. A release is often a link that is turned
 * to the next one, and Node and the kernel show only where links lead: kept as given, the same words start the next
 * release. Read before anything sets `process.title`, which overwrites what the kernel knows of the command.
 */
import { readFileSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { HeadraceError } from "../base/errors.ts";
import { absolutePath } from "../config/path.ts";
import type { Environment } from "./runtime-directory.ts";

export interface CommandAsGiven {
  /** Node's binary, absolute. */
  readonly node: string;
  /** Node's own options. */
  readonly execArgv: readonly string[];
  /** The program, absolute. */
  readonly entry: string;
  readonly args: readonly string[];
}

function sameFile(a: string, b: string): boolean {
  const [one, other] = [a, b].map((path) => statSync(path, { throwIfNoEntry: false }));
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev;
}

/**
 * `$PWD` where it names the working directory without `.` and `..`, as `pwd -L` has it; else where the kernel says we
 * are. Ask at start and keep the answer: once the link has turned, `$PWD` is another folder than the one we are in.
 * Throws `usage` when the directory has been removed.
 */
export function logicalWorkingDirectory(env: Environment): string {
  let physical: string;
  try {
    physical = process.cwd();
  } catch {
    throw new HeadraceError("usage", "the working directory does not exist any more; change to one that does");
  }
  const given = env.PWD;
  if (!given || !isAbsolute(given) || /(^|\/)\.\.?(\/|$)/.test(given)) return physical;
  return sameFile(given, ".") ? resolve(given) : physical;
}

/** The words of this process's command line; none when they cannot be read. */
function commandLine(): string[] {
  try {
    return readFileSync("/proc/self/cmdline", "utf8").split("\0").slice(0, -1);
  } catch {
    return [];
  }
}

/** Node as called: by a path, or by a name that was looked up in PATH. */
function nodeAsGiven(word: string, directory: string, env: Environment): string {
  const folders = word.includes("/") ? [""] : (env.PATH ?? "").split(delimiter);
  const found = folders
    .map((folder) => absolutePath(directory, join(folder, word)))
    .find((path) => sameFile(path, process.execPath));
  return found ?? process.execPath;
}

/** The command that started this process, for starting it again. `directory` is the logical working directory. */
export function commandAsGiven(directory: string, env: Environment): CommandAsGiven {
  const [program = process.execPath] = process.argv.slice(1);
  const args = process.argv.slice(2);
  const words = commandLine();
  const at = words.length - args.length - 1;
  const [node, word] = [words[0], words[at]];
  // The same words that Node saw, in the same places? Then not what somebody has written over them.
  if (at < 1 || node === undefined || word === undefined || resolve(word) !== program) {
    return { node: process.execPath, execArgv: process.execArgv, entry: program, args };
  }
  return {
    node: nodeAsGiven(node, directory, env),
    execArgv: words.slice(1, at),
    entry: absolutePath(directory, word),
    args,
  };
}
