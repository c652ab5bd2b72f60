/**
 * The program's own log: pino, one JSON object a line, or readable lines on a terminal. It goes to stdout or to a file
 * (`log.file`); the primary and every worker write there themselves. In systemd's journal each line has its priority.
 */
import { createRequire } from "node:module";
import type { DestinationStream, LevelWithSilent, Logger as PinoLogger } from "pino";
import { pino } from "pino";
import { isJournal } from "./journal.ts";
import { openLogFile } from "./log-file.ts";
import { LogStream } from "./log-stream.ts";

export type Logger = PinoLogger;

/** `levelVal` up to which debug lines are logged: for paths where asking must cost one comparison. */
export const DEBUG_LEVEL = 20;

const STDOUT = 1;

export interface LogOptions {
  readonly level: LevelWithSilent;
  /** Index that marks a worker's lines. */
  readonly worker?: number;
  /** Lines for people instead of JSON, where they go to a descriptor. */
  readonly pretty?: boolean;
  /** Where the lines go: a descriptor. Default: 1, stdout. */
  readonly fd?: number;
  /** Where they go instead: a file, by its absolute path. */
  readonly file?: string | undefined;
  /** What the process was started with, for JOURNAL_STREAM. */
  readonly env?: NodeJS.ProcessEnv;
}

/** Makes a readable line of one of pino's. */
function readable(worker: number | undefined): (line: string) => string {
  const require = createRequire(import.meta.url);
  const { prettyFactory } = require("pino-pretty") as typeof import("pino-pretty");
  return prettyFactory({
    colorize: !process.env.NO_COLOR,
    ignore: "pid,worker",
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
    messageFormat: (line, key) => `${worker === undefined ? "" : `worker ${worker}: `}${line[key]}`,
  });
}

function destinationOf({ fd = STDOUT, file, pretty, worker, env = process.env }: LogOptions): DestinationStream {
  if (file !== undefined) return new LogStream(openLogFile(file), { owned: true });
  // A terminal stops reading, too: Ctrl-S, or a connection to it that hangs.
  if (pretty) return new LogStream(fd, { format: readable(worker) });
  return new LogStream(fd, { journal: isJournal(fd, env) });
}

/**
 * Opens the log of this process. What is buffered is written when the process exits, whatever ends it but SIGKILL.
 * Throws `config-invalid` when `file` cannot be opened.
 */
export function createLogger(options: LogOptions): Logger {
  const base = { pid: process.pid, ...(options.worker === undefined ? {} : { worker: options.worker }) };
  return pino({ level: options.level, base }, destinationOf(options));
}

function streamOf(log: Logger): LogStream | undefined {
  const destination = (log as unknown as Record<symbol, unknown>)[pino.symbols.streamSym];
  return destination instanceof LogStream ? destination : undefined;
}

/** Writes to `file` as it is now: it was renamed, or removed, since it was opened. Throws as `createLogger`. */
export function reopenLog(log: Logger, file: string): void {
  streamOf(log)?.moveTo(openLogFile(file));
}

/** Lines that this process could not log so far. */
export function droppedLines(log: Logger): number {
  return streamOf(log)?.dropped ?? 0;
}

/**
 * Waits until everything is written, at most a second for a reader that does not read. The process exits next; when
 * this says `false`, at once, because a regular exit waits for the write that is stuck.
 */
export async function closeLog(log: Logger): Promise<boolean> {
  return (await streamOf(log)?.close()) ?? true;
}
