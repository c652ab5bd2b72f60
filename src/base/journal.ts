/**
 * Whether a descriptor leads to systemd's journal, and how a line says its priority there: `<6>` in front of it, which
 * the journal takes off and keeps as the line's PRIORITY (sd-daemon(3)). Whoever writes log lines asks for itself,
 * because each process of a service inherits both the descriptor and the variable.
 */
import { fstatSync } from "node:fs";

/** systemd.exec(5): device and inode of the stream that it connected to the journal. */
const VARIABLE = "JOURNAL_STREAM";

/** pino's levels, the most severe first, and the priorities of syslog(3). */
const PRIORITIES: readonly (readonly [level: number, priority: number])[] = [
  [60, 2],
  [50, 3],
  [40, 4],
  [30, 6],
];
const DEBUG = 7;

/** Only the stream itself counts: a variable that was inherited past a redirection is wrong. */
export function isJournal(fd: number, env: Readonly<Record<string, string | undefined>>): boolean {
  const stream = env[VARIABLE];
  if (!stream) return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** "<6>" for a level of pino's. */
export function journalPrefix(level: number): string {
  const priority = PRIORITIES.find(([least]) => level >= least)?.[1] ?? DEBUG;
  return `<${priority}>`;
}
