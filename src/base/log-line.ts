/**
 * One line of the log from a thread that has no log of its own, and should not load one: written at once, to where the
 * process logs. Whoever calls it can wait: a reader that does not read holds up the thread.
 */
import { closeSync, writeSync } from "node:fs";
import { isJournal, journalPrefix } from "./journal.ts";
import { openLogFile } from "./log-file.ts";

const STDOUT = 1;

/** `file`: absolute; undefined: stdout. Throws what the kernel says, and `config-invalid` as `openLogFile`. */
export function writeLogLine(
  line: { readonly level: number; readonly [field: string]: unknown },
  file: string | undefined,
): void {
  const text = `${JSON.stringify(line)}\n`;
  if (file === undefined) {
    writeSync(STDOUT, isJournal(STDOUT, process.env) ? journalPrefix(line.level) + text : text);
    return;
  }
  const fd = openLogFile(file);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
}
