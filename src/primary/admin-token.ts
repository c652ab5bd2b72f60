/**
 * The admin server's generated token: a file beside the control socket that only the server's user can read. A start
 * makes a new one, an upgrade takes over the one that is there, the last generation removes it.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { HeadraceError, messageOf } from "../base/errors.ts";

const TOKEN_BYTES = 32;
const OTHERS = 0o077;

export interface TokenFile {
  readonly path: string;
  readonly token: string;
  /** It is new: no other generation has it. */
  readonly made: boolean;
  /** Unlinks it, if it is still this one. */
  release(): void;
}

/** `admin-token` beside `control.sock`; beside a control socket of another name, one that bears that name. */
export function tokenPath(control: string): string {
  const name = basename(control);
  return join(dirname(control), name === "control.sock" ? "admin-token" : `${name}.admin-token`);
}

const inode = (path: string): number | undefined => lstatSync(path, { throwIfNoEntry: false })?.ino;

function owned(path: string, fd: number, token: string, made: boolean): TokenFile {
  const { ino } = fstatSync(fd);
  closeSync(fd);
  return {
    path,
    token,
    made,
    release(): void {
      if (inode(path) === ino) unlinkSync(path);
    },
  };
}

/** That of the generation before is of no use any more. */
export function removeTokenFile(control: string): void {
  rmSync(tokenPath(control), { force: true });
}

/** Throws `control-refused` when it cannot be made. */
export function makeTokenFile(control: string): TokenFile {
  const path = tokenPath(control);
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  try {
    // Of a server that was killed. Nobody follows a link that somebody else may have put there.
    if (inode(path) !== undefined) unlinkSync(path);
    const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    const token = randomBytes(TOKEN_BYTES).toString("base64url");
    writeSync(fd, `${token}\n`);
    return owned(path, fd, token, true);
  } catch (error) {
    const message = `the admin server's token cannot be written to ${path}: ${messageOf(error)}; set admin.token, or admin.address: off`;
    throw new HeadraceError("control-refused", message, { file: path, option: "admin.token" }, { cause: error });
  }
}

/** That of the generation before; a new one when it is not there any more, or may be known to others. */
export function adoptTokenFile(control: string, uid: number): TokenFile {
  const path = tokenPath(control);
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const found = fstatSync(fd);
    const token = readFileSync(fd, "utf8").trim();
    if (found.isFile() && found.uid === uid && (found.mode & OTHERS) === 0 && token.length >= TOKEN_BYTES) {
      return owned(path, fd, token, false);
    }
    closeSync(fd);
  } catch {
    // It was removed: whoever needs the token reads the new one.
  }
  return makeTokenFile(control);
}
