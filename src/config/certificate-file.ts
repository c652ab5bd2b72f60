/** Reads a file that may be anything: a folder, a pipe that nobody writes to, another user's, a disk image. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { messageOf } from "../base/errors.ts";

export interface GivenBytes {
  readonly text: string;
  /** Permissions. */
  readonly mode: number;
}

/** Thousands of certificates. */
const LARGEST_BYTES: number = 4 * 1024 ** 2;

const PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  EACCES: "cannot be read: permission denied",
  ELOOP: "cannot be read: its links lead in a circle",
};

/** The file's text and permissions, or why it cannot be used, to be said behind its name. */
export function readGiven(path: string): GivenBytes | string {
  try {
    // Opening a pipe would wait for a writer.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) return "is not a file";
      if (stat.size > LARGEST_BYTES) return `has ${stat.size} bytes, which is too much`;
      return { text: readFileSync(fd, "latin1"), mode: stat.mode };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    return PROBLEMS[code] ?? `cannot be read: ${messageOf(error)}`;
  }
}
