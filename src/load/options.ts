/**
 * What a load generator is asked to do, as plain data: flags.ts makes it of the command line, run.ts gives each
 * process its share of it, and it travels over IPC as it is.
 */

/**
 * How messages are made: `line` ends in "\n", `frame` begins with a 4-byte length, `raw` is the bytes alone, `rpc` is a
 * request whose reply is of status ok (src/codec/rpc.ts).
 */
export const LOAD_CODECS = ["line", "frame", "raw", "rpc"] as const;
export type LoadCodec = (typeof LOAD_CODECS)[number];

/**
 * - `closed`: a connection sends when a reply came. Says what the server can do, hides how long it keeps people waiting.
 * - `open`: messages are due at fixed times, whatever the server does. Says what people would feel.
 * - `flood`: as much as the sockets take.
 * - `churn`: connect, one message, close, over and over.
 * - `hold`: connect, one message, and stay.
 */
export type LoadMode = "closed" | "open" | "flood" | "churn" | "hold";

/** `full`: every connection makes a handshake of its own; `resume`: all but the first take up its session. */
export type LoadTls = "off" | "full" | "resume";

export interface LoadOptions {
  /** IP literal. */
  readonly host: string;
  readonly port: number;
  readonly codec: LoadCodec;
  /** Payload of a message, bytes. The "\n" of a line counts, the length of a frame and the header of a request do not. */
  readonly sizeBytes: number;
  readonly mode: LoadMode;
  /** Connections open at once, over all processes. */
  readonly connections: number;
  /** Messages without a reply that one connection may have (`closed` and `open`). */
  readonly pipeline: number;
  /** `open`: messages due per second, over all connections. */
  readonly messagesPerSecond?: number;
  /** New connections per second at most. Absent: as fast as they are accepted. */
  readonly connectsPerSecond?: number;
  readonly tls: LoadTls;
  /** How a connection ends: FIN, or RST. */
  readonly close: "finish" | "reset";
  readonly warmupMs: number;
  readonly durationMs: number;
  /** For a connect to succeed; in `churn` and `hold` also for its reply to come, ms. */
  readonly timeoutMs: number;
  /** Addresses to connect from, in turn. Empty: the kernel's choice. */
  readonly sources: readonly string[];
  readonly processes: number;
}

/** What one process does of it. */
export interface LoadShare extends LoadOptions {
  /** Number of its first connection; numbers are unique over all processes. */
  readonly first: number;
  /** Connections of all processes. */
  readonly all: number;
  /** Connects begun and not decided yet, at most. */
  readonly pending: number;
}

/** Connects in flight over all processes: enough to keep a server busy, far below any accept queue. */
const PENDING = 512;

/** The share of process `index`, where connections and rates are divided as evenly as whole connections allow. */
export function shareOf(options: LoadOptions, index: number): LoadShare {
  const { connections, processes, messagesPerSecond, connectsPerSecond } = options;
  const first = Math.floor((connections * index) / processes);
  const own = Math.floor((connections * (index + 1)) / processes) - first;
  const part = own / connections;
  return {
    ...options,
    first,
    all: connections,
    connections: own,
    pending: Math.max(1, Math.floor(PENDING / processes)),
    ...(messagesPerSecond === undefined ? {} : { messagesPerSecond: messagesPerSecond * part }),
    ...(connectsPerSecond === undefined ? {} : { connectsPerSecond: connectsPerSecond * part }),
  };
}
