/** The configuration file's bytes: found, bounded and decoded. What cannot be read is an error with its reason. */
import { closeSync, openSync, readSync } from "node:fs";
import { HeadraceError } from "../base/errors.ts";
import { absolutePath } from "./path.ts";

export const DEFAULT_FILE = "headrace.yaml";
const MAX_BYTES = 1024 * 1024;

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  ENOTDIR: "no such file",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EISDIR: "it is a folder",
  ELOOP: "too many symbolic links",
  ENAMETOOLONG: "its name is too long",
};

function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}

function unreadable(file: string, reason: string, cause?: unknown): HeadraceError {
  return new HeadraceError("config-invalid", `${file}: cannot be read: ${reason}`, { file }, { cause });
}

/** Reads in pieces, since a pipe (`--config <(…)`) has no size to check first. */
function readBytes(path: string): Buffer {
  const fd = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(MAX_BYTES + 1);
    let length = 0;
    for (;;) {
      const count = readSync(fd, bytes, length, bytes.length - length, null);
      length += count;
      if (count === 0 || length === bytes.length) return bytes.subarray(0, length);
    }
  } finally {
    closeSync(fd);
  }
}

/**
 * Text of `file`, relative to `cwd`. Throws `config-invalid` when it is missing, unreadable, larger than 1 MiB or
 * not UTF-8; a missing one that nobody named is `undefined`.
 */
export function readConfigFile(file: string, cwd: string, named: boolean): string | undefined {
  let bytes: Buffer;
  try {
    bytes = readBytes(absolutePath(cwd, file));
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === "ENOENT" && !named) return undefined;
    throw unreadable(file, REASONS[errno] ?? errno, cause);
  }
  if (bytes.length > MAX_BYTES) throw unreadable(file, "it is larger than 1MiB");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw unreadable(file, "it is not UTF-8 text", cause);
  }
}
