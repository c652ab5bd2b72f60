/**
 * The program's own log: pino on stdout, one JSON object a line, or readable lines on a terminal. The primary
 * and every worker write to the same stdout themselves.
 */
import { createRequire } from "node:module";
import type { DestinationStream, LevelWithSilent, Logger as PinoLogger } from "pino";
import { pino } from "pino";
import { LogStream } from "./log-stream.ts";

export type Logger = PinoLogger;

export interface LogOptions {
  readonly level: LevelWithSilent;
  /** Index that marks a worker's lines. */
  readonly worker?: number;
  /** Lines for people instead of JSON. */
  readonly pretty?: boolean;
  /** Where the lines go: a descriptor. Default: 1, stdout. */
  readonly fd?: number;
}

/** Readable lines, written at once: a terminal is fast, and nothing can be lost when the process dies. */
function prettyDestination(fd: number, worker: number | undefined): DestinationStream {
  const require = createRequire(import.meta.url);
  const { prettyFactory } = require("pino-pretty") as typeof import("pino-pretty");
  const format = prettyFactory({
    colorize: !process.env.NO_COLOR,
    ignore: "pid,worker",
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
    messageFormat: (line, key) => `${worker === undefined ? "" : `worker ${worker}: `}${line[key]}`,
  });
  const terminal = pino.destination({ fd, sync: true });
  return { write: (line) => terminal.write(format(line)) };
}

/** Opens the log of this process. What is buffered is written when the process exits, whatever ends it but SIGKILL. */
export function createLogger(options: LogOptions): Logger {
  const fd = options.fd ?? 1;
  const base = { pid: process.pid, ...(options.worker === undefined ? {} : { worker: options.worker }) };
  const destination = options.pretty ? prettyDestination(fd, options.worker) : new LogStream(fd);
  return pino({ level: options.level, base }, destination);
}

/**
 * Waits until everything is written, at most a second for a reader that does not read. The process exits next; when
 * this says `false`, at once, because a regular exit waits for the write that is stuck.
 */
export async function closeLog(log: Logger): Promise<boolean> {
  const destination = (log as unknown as Record<symbol, unknown>)[pino.symbols.streamSym];
  return destination instanceof LogStream ? destination.close() : true;
}
