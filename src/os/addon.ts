/**
 * The native addon's face: every function it exports, typed, and nothing else. Rules of the boundary:
 * functions that can fail return a negative errno (never throw for a system error); descriptors are plain
 * numbers owned by the caller; all sockets and descriptors are close-on-exec. src/os turns errnos into errors.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { HeadraceError, messageOf } from "../base/errors.ts";

/** Result of a call: 0 or a positive value, or a negative errno. */
type Errno = number;

/** Opaque engine handle (a napi_external). */
export type EngineHandle = { readonly engine: unique symbol };

/** The memory that engine and JavaScript share; src/engine/layout.ts says what stands where. */
export interface EngineMemory {
  /** Control words, engine and JavaScript both write. */
  readonly header: Int32Array;
  /** Monotonic clock (ms) at index 0, then totals; may live in the scoreboard. */
  readonly totals: Float64Array;
  /** Bytes received in this round. */
  readonly input: Uint8Array;
  /** Records of this round, INPUT_WORDS each. */
  readonly inputRecords: Int32Array;
  /** Bytes to send. */
  readonly output: Uint8Array;
  /** Records to send, OUTPUT_WORDS each. */
  readonly outputRecords: Int32Array;
  /** Per slot: generation. */
  readonly generations: Int32Array;
  /** Per slot: bytes accepted for sending and not yet taken by the kernel. */
  readonly unsent: Int32Array;
  /** Per slot: what COUNTER in src/engine/layout.ts names. */
  readonly counters: Float64Array;
}

export interface Addon {
  // Sockets (native/socket.c). `options` is the Int32Array of src/os/socket.ts.
  /**
   * A bound, listening, non-blocking TCP socket. `exclusive`: binds without SO_REUSEPORT and sets it only after
   * listen(), so that a rival's socket on the address makes it fail; else joins the address's group.
   */
  socketListen(host: string, port: number, exclusive: boolean, options: Int32Array): Errno;
  /** Binds as socketListen does with `exclusive`, without listening, and closes again: 0 or why it cannot. */
  socketProbe(host: string, port: number, options: Int32Array): Errno;
  /** "address port" of this end or of the peer. */
  socketName(fd: number, peer: boolean): string | Errno;
  /** Reads option `index` of src/os/socket.ts back, in its unit. */
  socketOption(fd: number, index: number): number;

  // Descriptors (native/fds.c)
  fdClose(fd: number): Errno;
  fdDuplicate(fd: number): Errno;
  /** flock(LOCK_EX | LOCK_NB). -EWOULDBLOCK: someone else holds it. */
  fdLock(fd: number): Errno;
  /** A connected pair of SOCK_SEQPACKET unix sockets, non-blocking. */
  fdPair(): [number, number] | Errno;
  /** One message: bytes (at least one, at most 64 KiB) and up to 253 descriptors. The descriptors stay the caller's. */
  fdSend(channel: number, bytes: Uint8Array, fds: readonly number[]): Errno;
  /** One message, without waiting: -EAGAIN when none is there; length 0 when the other end is closed. */
  fdReceive(channel: number, into: Uint8Array): { length: number; fds: number[] } | Errno;
  /** SO_PEERCRED of a unix socket. */
  fdPeer(fd: number): { pid: number; uid: number; gid: number } | Errno;
  /**
   * From a thread of its own, whatever the event loop does: once the other end of `channel` is closed for `afterMs`,
   * ends the process with code 1.
   */
  exitWithPeer(channel: number, afterMs: number): Errno;
  /** A zeroed memfd of `size` bytes. */
  memoryCreate(name: string, size: number): Errno;
  /** Maps it shared. Throws when it cannot. Unmapped when collected; the descriptor may be closed at once. */
  memoryMap(fd: number, size: number): ArrayBuffer;

  // Engine (native/engine.c)
  /** Opens an engine on this thread's event loop. `onRound(count)` gets the number of input records. */
  engineOpen(memory: EngineMemory, onRound: (count: number) => void): EngineHandle | Errno;
  /** Resets every connection and stops. Idempotent. Listening sockets stay open: they are the caller's. */
  engineClose(engine: EngineHandle): void;
  /**
   * Accepts from `fd` as listener `id` (0 to 63). `lingerMs`: how long a closing connection waits for the peer's FIN
   * before RST; -1: 1 s, then close().
   */
  engineListen(engine: EngineHandle, id: number, fd: number, lingerMs: number): Errno;
  /** Accepts what is queued, at most 64; returns input records to be read at once. 0 inside a round. */
  engineAcceptQueued(engine: EngineHandle, id: number): number;
  /** Stops accepting. The socket stays open. */
  engineUnlisten(engine: EngineHandle, id: number): Errno;
  /**
   * Counts connections in shared memory: row 0 is the server's total, row 1 + id a listener's; `columns` per row,
   * this worker's is `column`. `caps[row]` (0 = none) is never exceeded by the sum of a row.
   */
  engineAdmission(engine: EngineHandle, table: Int32Array, columns: number, column: number, caps: Int32Array): Errno;
  /** Begins to connect; the outcome comes as a record. Returns the slot. `localHost` "" = any. */
  engineConnect(engine: EngineHandle, host: string, port: number, localHost: string, options: Int32Array): Errno;
  /** Takes a connected socket over (now the engine's). Returns the slot. */
  engineAdopt(engine: EngineHandle, id: number, fd: number): Errno;
  /** Gives a connection up, unclosed: its descriptor (now the caller's) and what was not sent yet. */
  engineRelease(engine: EngineHandle, slot: number, generation: number): { fd: number; unsent: Uint8Array } | Errno;
  /** Sends the output records now. Never calls into JavaScript. */
  engineFlush(engine: EngineHandle): void;
  /** Sends from any memory, after everything in the output records. What the kernel does not take is copied. */
  engineSend(engine: EngineHandle, slot: number, generation: number, bytes: Uint8Array): Errno;
  /** Advances the clock: paused listeners, closing connections. Call every TICK_MS. */
  engineTick(engine: EngineHandle): void;
  /** Bytes that have arrived for a slot and were not read yet (FIONREAD). */
  engineUnread(engine: EngineHandle, slot: number, generation: number): Errno;
  /** "address port" of a slot's peer, as accepted. */
  engineAddress(engine: EngineHandle, slot: number, generation: number): string | Errno;
}

/** The package's own folder: the nearest above this file that has a package.json. */
export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, "package.json"))) directory = dirname(directory);
  return directory;
}

let loaded: Addon | undefined;

/**
 * The addon, loaded at first use.
 * Throws `unsupported-platform` anywhere but on Linux, `addon-missing` when no binary fits.
 */
export function addon(): Addon {
  if (loaded) return loaded;
  if (process.platform !== "linux") {
    throw new HeadraceError("unsupported-platform", `headrace runs on Linux only (this is ${process.platform})`);
  }
  const require = createRequire(import.meta.url);
  const load = require("node-gyp-build") as (directory: string) => Addon;
  const root = packageRoot();
  try {
    loaded = load(existsSync(join(root, "prebuilds")) ? root : join(root, "native"));
  } catch (cause) {
    throw new HeadraceError(
      "addon-missing",
      `the native addon could not be loaded: ${messageOf(cause)}; build it with \`npm rebuild headrace\``,
      {},
      { cause },
    );
  }
  return loaded;
}
