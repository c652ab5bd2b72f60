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
import type { TlsContext } from "./tls-addon.ts";

/** Result of a call: 0 or a positive value, or a negative errno. */
type Errno = number;

/** Opaque engine handle (a napi_external). */
export type EngineHandle = { readonly engine: unique symbol };

/** Opaque handle of a watched channel. */
export type ChannelWatch = { readonly channel: unique symbol };

/** Opaque handle of a bell that is listened to. */
type Bell = { readonly bell: unique symbol };

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
  /** What the engine was given later and uses to its end. */
  readonly pinned: Set<Float64Array | Int32Array>;
}

interface SocketKind {
  readonly type: "stream" | "datagram" | "other";
  readonly family: "ipv4" | "ipv6" | "unix" | "other";
  readonly listening: boolean;
}

/** What TLS knows of a connection once it is secured. */
export interface TlsInfo {
  /** "TLSv1.2" or "TLSv1.3". */
  readonly protocol: string;
  /** OpenSSL's name of the cipher suite, the one that options use. */
  readonly cipher: string;
  /** The name that the client asked for (SNI). */
  readonly serverName?: string;
  /** The protocol agreed on by ALPN. */
  readonly alpn?: string;
  /** By a session of an earlier connection, without a new exchange of certificates. */
  readonly resumed: boolean;
  /** The peer's own certificate, DER. Also of a resumed connection. */
  readonly peerCertificate?: Uint8Array;
  /** Why the peer's certificate was not believed, where that is no reason to refuse it (`verify: "optional"`). */
  readonly verifyError?: string;
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

  /**
   * Sets the options of a listening socket for the connections it accepts from now on, and its backlog. `ipv6Only`
   * stays. What is -1 is the kernel's again, but a buffer keeps its size (tuned from there) and so do keepalive's
   * interval and count.
   */
  socketApply(fd: number, options: Int32Array): Errno;
  /**
   * New connections go to the first `count` members of the socket's SO_REUSEPORT group, at random; what waits in the
   * others' queues stays. The order is that of listen(), but the last member takes the place of one that is closed.
   */
  socketSteer(fd: number, count: number): Errno;
  /** To all members again, as the kernel spreads them. Also where nothing was steered. */
  socketUnsteer(fd: number): Errno;
  /** Connections in the accept queue of a listening TCP socket. */
  socketQueue(fd: number): number;
  /** SO_COOKIE: identifies a socket whatever the descriptor and the process, for as long as the machine runs. */
  socketCookie(fd: number): string | Errno;
  /** SO_TYPE, SO_DOMAIN, SO_ACCEPTCONN. -ENOTSOCK for what is no socket. */
  socketKind(fd: number): SocketKind | Errno;

  // UDP sockets (native/udp.c)
  /**
   * A bound, non-blocking UDP socket. `exclusive`: binds without SO_REUSEPORT and sets it only then, so that a rival's
   * socket on the address makes it fail; else joins the address's group. Of `options` buffers and `ipv6Only` count.
   */
  udpBind(host: string, port: number, exclusive: boolean, options: Int32Array): Errno;
  /** Binds as udpBind does with `exclusive`, and closes again: 0 or why it cannot. */
  udpProbe(host: string, port: number, options: Int32Array): Errno;
  /** Sets the buffers. */
  udpApply(fd: number, options: Int32Array): Errno;
  /**
   * Datagrams go to the first `count` members of the socket's group, by a hash of source address and port; what waits
   * in the others stays. The order is that of bind(). socketUnsteer ends it.
   */
  udpSteer(fd: number, count: number): Errno;
  /** Datagrams that the kernel has dropped since the socket was made, modulo 2^31. */
  udpDrops(fd: number): number;

  // Descriptors (native/fds.c)
  fdClose(fd: number): Errno;
  fdDuplicate(fd: number): Errno;
  /** Makes a descriptor that this process was started with close-on-exec and non-blocking. */
  fdInherit(fd: number): Errno;
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
  /** Calls `onReadable` whenever the channel has a message or its other end is gone; keeps the loop alive. */
  channelWatch(fd: number, onReadable: () => void): ChannelWatch | Errno;
  /** Ends it. Idempotent. The descriptor may be closed afterwards, and not before. */
  channelUnwatch(watch: ChannelWatch): void;
  /**
   * From a thread of its own, whatever the event loop does: once the other end of `channel` is closed for `afterMs`,
   * ends the process with code 1.
   */
  exitWithPeer(channel: number, afterMs: number): Errno;
  /** A non-blocking eventfd. */
  eventCreate(): Errno;
  /** Clears what `columns` columns from `first` on count of addresses, in the memory of an admission table. */
  addressClear(memory: number, first: number, columns: number): Errno;
  /** Ends the process with nothing more done or waited for: not the thread pool, no exit handlers. */
  exitNow(code: number): never;
  /** A zeroed memfd of `size` bytes, whose size is sealed. */
  memoryCreate(name: string, size: number): Errno;
  /** Maps `size` bytes of it shared, from `offset`, a multiple of the page size. Throws when it cannot. Unmapped when collected; the descriptor may be closed at once. */
  memoryMap(fd: number, size: number, offset: number): ArrayBuffer;

  // Bells (native/addon_bell.c): two words of shared memory
  /**
   * Has `onRing` called in the event loop, which it does not keep alive, once for each `bellArm`. The bell begins at
   * `word` of the memory `fd`, which may be closed at once; it must be in the first page.
   */
  bellListen(fd: number, word: number, onRing: () => void): Bell | Errno;
  /** The next ring calls back. What was rung before is for the caller to look at, afterwards. */
  bellArm(bell: Bell): void;
  bellRing(words: Int32Array): void;

  // Unix sockets (native/unix.c)
  /** A bound, listening, non-blocking stream socket; its file is 0600 from the start and the caller's to remove. */
  unixListen(path: string): Errno;
  /**
   * One datagram to the datagram socket at `path` ("@name": an abstract name), with copies of `fds`. Never waits:
   * -EAGAIN when the receiver's queue is full.
   */
  unixSend(path: string, bytes: Uint8Array, fds: readonly number[]): Errno;

  // Engine (native/engine.c)
  /** Opens an engine on this thread's event loop. `onRound(count)` gets the number of input records. */
  engineOpen(memory: EngineMemory, onRound: (count: number) => void): EngineHandle | Errno;
  /** Resets every connection and stops. Idempotent. Listening sockets stay open: they are the caller's. */
  engineClose(engine: EngineHandle): void;
  /**
   * Accepts connections of `listener` (0 to 63) from `fd`, as watch number `watch` (0 to 16383): a listener may have
   * several. `lingerMs`, of the listener's connections from now on: how long a closing one waits for the peer's FIN
   * before RST; -1: 1 s, then close(). Workers may share a socket. Unlisten before closing it.
   */
  engineListen(engine: EngineHandle, watch: number, listener: number, fd: number, lingerMs: number): Errno;
  /** Accepts what is queued, at most 64; returns input records to be read at once. 0 inside a round. */
  engineAcceptQueued(engine: EngineHandle, watch: number): number;
  /** Stops accepting. The socket stays open. -EINVAL when nothing is accepted there. */
  engineUnlisten(engine: EngineHandle, watch: number): Errno;
  /**
   * Counts connections in the words of src/os/admission-table.ts, in `column`, which its half's high-water mark has to
   * cover (-EINVAL). `caps`, per row, 0 = none: never exceeded by the sum of a row. May be called again with other
   * caps, not with another place (-EBUSY). `memory` and `wake`, of the first call: the descriptors of the table, so that
   * addresses are counted too, and of its eventfd, which must stay open; -1: neither.
   */
  engineAdmission(
    engine: EngineHandle,
    words: Int32Array,
    column: number,
    caps: Int32Array,
    memory: number,
    wake: number,
  ): Errno;
  /** How `listener` limits its clients from now on: RULE of src/engine/layout.ts. */
  engineRule(engine: EngineHandle, listener: number, rule: Float64Array): Errno;
  /**
   * Which addresses may come to `listener`: 16 bytes for the start of each range, ascending from 0, and whether it is
   * denied. None: all may.
   */
  engineList(engine: EngineHandle, listener: number, starts: Uint8Array, denied: Uint8Array): Errno;
  /**
   * The client of a slot is another than the socket's peer: it is the one that is counted and shown from now on.
   * Returns 0, or the place of a reason in REJECT_REASONS plus one, and then nothing has changed.
   */
  engineAdmit(engine: EngineHandle, slot: number, generation: number, host: string, port: number): Errno;
  /** Begins to connect; the outcome comes as a record. Returns the slot. `localHost` "" = any. */
  engineConnect(engine: EngineHandle, host: string, port: number, localHost: string, options: Int32Array): Errno;
  /** The linger (as in engineListen) of the connections that `listener` gets from now on. */
  engineLinger(engine: EngineHandle, listener: number, lingerMs: number): Errno;
  /**
   * Takes a connected socket over (now the engine's) as one of `listener`. `entry`: what it holds in the admission
   * table already, as released; -2: nothing, so it takes a place, whatever the limits. `host`: its client, "": the
   * socket's peer. Returns the slot; on error nothing has changed.
   */
  engineAdopt(engine: EngineHandle, listener: number, fd: number, entry: number, host: string, port: number): Errno;
  /**
   * Gives a connection up, unclosed: its descriptor (now the caller's) and what was not sent yet. `entry`: so is its
   * place in the admission table; -2: it has none. -EBUSY inside a round.
   */
  engineRelease(
    engine: EngineHandle,
    slot: number,
    generation: number,
  ): { fd: number; unsent: Uint8Array; entry: number } | Errno;
  /**
   * Resets closing connections that hold unsent bytes, the oldest first, until at least `bytes` of buffers are free.
   * Returns the bytes freed.
   */
  engineAbandon(engine: EngineHandle, bytes: number): number;
  /** Gives the place of a released connection of `listener` back. Nothing once the engine is closed. */
  engineLeave(engine: EngineHandle, listener: number, entry: number): void;
  /** Sends the output records now. Never calls into JavaScript. */
  engineFlush(engine: EngineHandle): void;
  /** Sends from any memory, after everything in the output records. What the kernel does not take is copied. */
  engineSend(engine: EngineHandle, slot: number, generation: number, bytes: Uint8Array): Errno;
  /** Advances the clock: paused listeners, closing connections. Call every TICK_MS. */
  engineTick(engine: EngineHandle): void;
  /**
   * Begins TLS on an open slot, by a context of the TLS addon. `early`: bytes of it that were read already.
   * `serverName` "" and an empty `session`: none. -EBADF when the slot is not open, -EALREADY when it has TLS,
   * -EINVAL for a session that OpenSSL does not understand.
   */
  engineSecure(
    engine: EngineHandle,
    slot: number,
    generation: number,
    context: TlsContext,
    early: Uint8Array,
    serverName: string,
    session: Uint8Array,
  ): Errno;
  /** -EBADF: no such slot, -ENOTCONN: not secured. */
  engineTls(engine: EngineHandle, slot: number, generation: number): TlsInfo | Errno;
  /** Why TLS failed: OpenSSL's words. "": it has not. */
  engineTlsError(engine: EngineHandle, slot: number, generation: number): string | Errno;
  /** The session by which a later connection may be resumed. Empty: none (yet). */
  engineTlsSession(engine: EngineHandle, slot: number, generation: number): Uint8Array | Errno;
  /** Bytes that have arrived for a slot and were not read yet (FIONREAD). */
  engineUnread(engine: EngineHandle, slot: number, generation: number): Errno;
  /** What reading a slot would find now: 0 nothing, 1 bytes, 2 the peer's end, or a negative errno. Reads nothing. */
  enginePeek(engine: EngineHandle, slot: number, generation: number): Errno;
  /** The engine does not keep the process alive any more. */
  engineUnref(engine: EngineHandle): void;
  /** Address (IPv4 in the first four of 16 bytes), port (big-endian) and family (4, 6, 0) of a slot's peer: 20 bytes. */
  engineWritePeer(engine: EngineHandle, slot: number, generation: number, into: Uint8Array): void;
  /** Two 32-bit words: the kernel's smoothed round-trip time, µs, and how many segments it has sent again. */
  engineTiming(engine: EngineHandle, slot: number, generation: number, into: Uint8Array): Errno;
  /** "address port" of a slot's peer, as accepted. */
  engineAddress(engine: EngineHandle, slot: number, generation: number): string | Errno;

  // Datagrams (native/datagram.c)
  /**
   * How `listener` (0 to 63) treats datagrams from now on: the bytes of one that may arrive, and the bytes that may go
   * to a source that is not verified for each that came (0: any number). Both arrays must be in `EngineMemory.pinned`;
   * `sources` is that of the first call.
   */
  engineDatagrams(
    engine: EngineHandle,
    listener: number,
    mostBytes: number,
    factor: number,
    counters: Float64Array,
    sources: Int32Array,
  ): Errno;
  /** Receives from `fd`, as watch number `watch`, for `listener`. Workers may share a socket. Stop before closing it. */
  engineReceive(engine: EngineHandle, watch: number, listener: number, fd: number): Errno;
  /** Receives what waits there; returns input records to be read at once. 0 when nothing is left, and inside a round. */
  engineReceiveQueued(engine: EngineHandle, watch: number): number;
  engineReceiveStop(engine: EngineHandle, watch: number): Errno;
  /** `listener` sends by a duplicate of `fd` from now on; -1: by nothing. */
  engineSender(engine: EngineHandle, listener: number, fd: number): Errno;
  /** The entry of the source that `end` (END of src/engine/layout.ts) names, or -1. `take`: it gets one if need be. */
  engineSource(engine: EngineHandle, end: Int32Array, take: boolean): number;
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
