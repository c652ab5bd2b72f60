/**
 * Where the control socket lives unless it is told otherwise. The server makes the directory, the commands only
 * ask for its name; both follow the same rule. Nobody else can put anything into it: 0700, our own, no symlink.
 */
import { chmodSync, lstatSync, mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { HeadraceError, messageOf } from "../base/errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

const PRIVATE = 0o700;
const WRITABLE_BY_OTHERS = 0o022;

/** Effective user: what files we make belong to. */
export function ownUid(): number {
  return process.geteuid?.() ?? 0;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/**
 * `$RUNTIME_DIRECTORY` (systemd.exec(5): the first of a list), else `$XDG_RUNTIME_DIR/headrace` where that
 * directory exists (after su it often does not), else `/tmp/headrace-UID`.
 */
export function runtimeDirectory(env: Environment, uid: number): string {
  const given = env.RUNTIME_DIRECTORY?.split(":")[0];
  if (given) return given;
  const session = env.XDG_RUNTIME_DIR;
  return session && isDirectory(session) ? join(session, "headrace") : `/tmp/headrace-${uid}`;
}

export function defaultControlPath(env: Environment, uid: number): string {
  return join(runtimeDirectory(env, uid), "control.sock");
}

/** Makes sure of the directory of `path`. One that the user chose must exist; the default one is made and guarded. */
export function openRuntimeDirectory(path: string, env: Environment, uid: number): void {
  const directory = dirname(path);
  if (directory !== runtimeDirectory(env, uid)) {
    if (isDirectory(directory)) return;
    throw new HeadraceError("config-invalid", `the control socket's directory ${directory} does not exist`, {
      option: "control",
      given: path,
    });
  }
  const refuse = (why: string): HeadraceError =>
    new HeadraceError(
      "control-refused",
      `the runtime directory ${directory} ${why}; pass --control PATH to use another`,
    );
  try {
    mkdirSync(directory, { mode: PRIVATE });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw refuse(`cannot be made (${messageOf(error)})`);
  }
  const found = lstatSync(directory);
  if (!found.isDirectory()) throw refuse("is not a directory");
  if (found.uid !== uid) throw refuse(`belongs to user ${found.uid}`);
  if (found.mode & WRITABLE_BY_OTHERS) throw refuse("can be written by other users");
  // systemd makes it 0755: nobody could have put anything in, so closing it is enough.
  if ((found.mode & 0o777) !== PRIVATE) chmodSync(directory, PRIVATE);
}
