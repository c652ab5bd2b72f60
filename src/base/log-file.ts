/**
 * The file of `log.file`. All processes of the server open it by themselves and append: the kernel puts each write
 * behind what is there (O_APPEND, open(2)), so whole lines of several processes never overlap.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { HeadraceError, messageOf } from "./errors.ts";

const { O_APPEND, O_CREAT, O_NOCTTY, O_RDWR } = constants;
/** Its group may read it: log shippers do. */
const MODE = 0o640;
const NEWLINE = 0x0a;

/** Opens it, and makes it where only the folder is there. Throws `config-invalid` with the file and why not. */
export function openLogFile(path: string): number {
  try {
    // Read too: what was written last is looked at after a shortage.
    return openSync(path, O_RDWR | O_APPEND | O_CREAT | O_NOCTTY, MODE);
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? messageOf(error);
    const allowed = "a file that this user may write, in a folder that is there";
    throw new HeadraceError("config-invalid", `log.file: ${path} cannot be opened (${errno}); allowed: ${allowed}`, {
      option: "log.file",
      given: path,
      allowed,
      errno,
    });
  }
}

/** Opens it and closes it again. Throws as `openLogFile`. */
export function checkLogFile(path: string): void {
  closeSync(openLogFile(path));
}

/** The last line is unfinished. Undefined where that cannot be seen: a pipe, or a descriptor that cannot read. */
export function endsInLine(fd: number): boolean | undefined {
  try {
    const { size } = fstatSync(fd);
    if (size === 0) return false;
    const last = Buffer.alloc(1);
    return readSync(fd, last, 0, 1, size - 1) === 1 ? last[0] !== NEWLINE : undefined;
  } catch {
    return undefined;
  }
}
