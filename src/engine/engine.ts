/**
 * The TypeScript face of the native engine: rounds in, commands out. Each slot has one owner (a connection,
 * a client), which hears of its bytes and must close the slot in the end, whatever happened to the socket.
 * Everything that goes out (bytes, close, pause) is a record in one ordered list that the engine carries out
 * when the round ends, before the loop sleeps, or when the list is full.
 */
import { constants } from "node:os";
import { isMainThread } from "node:worker_threads";
import { HeadraceError } from "../base/errors.ts";
import { REJECT_REASONS, type RejectReason } from "../base/reasons.ts";
import type { Deadline, OnLimit } from "../base/settings.ts";
import { addon, type EngineHandle, type EngineMemory, type TlsInfo } from "../os/addon.ts";
import { openFilesLimit } from "../os/descriptors.ts";
import { check, errnoName } from "../os/errno.ts";
import type { TlsContext } from "../os/tls-addon.ts";
import { Datagrams } from "./datagrams.ts";
import { Laps } from "./laps.ts";
import {
  COUNTER,
  ENTRY,
  HEADER,
  INPUT,
  INPUT_BYTES,
  INPUT_RECORDS,
  OUTPUT,
  OUTPUT_BYTES,
  OUTPUT_RECORDS,
  RULE,
  TICK_MS,
  TOTAL_BYTES_HELD_OUT,
  TOTAL_CLOCK,
  TOTALS,
} from "./layout.ts";

/** What a slot's owner hears. After `onError` the descriptor is gone; the slot still has to be closed. */
export interface SlotOwner {
  /** The slot is the owner's now. */
  onOpen(): void;
  /** `input[from, to)` arrived; the memory is reused when the call returns. */
  onData(input: Buffer, from: number, to: number): void;
  /** The peer sends no more (it may still receive). */
  onEnd(): void;
  /** `errno` is positive. */
  onError(errno: number): void;
  /** Unsent bytes fell below the mark set by `notifyBelow`. */
  onWritable(): void;
  /** The kernel took no more for now: bytes wait unsent. */
  onBlocked(): void;
  /**
   * The TLS handshake that `secure` began is through. `onData`, from now on plaintext, may follow in the same round.
   */
  onSecured?(): void;
}

/** What TLS on a slot begins with (see `Engine.secure`). */
export interface SecureOptions {
  /** The first bytes of it, which were read too far; copied. */
  readonly early?: Uint8Array;
  /** Client side: the server's name, which is asked for (SNI) and which its certificate must be for; or its IP address. */
  readonly serverName?: string;
  /** Client side: what `tlsSession` gave for an earlier connection to the same server. */
  readonly session?: Uint8Array;
}

/** What a listener hears. */
export interface Acceptor {
  /** A connection was accepted into `slot`. Returns its owner, which may act from `onOpen` on. */
  onAccept(slot: number, generation: number): SlotOwner;
  /** Accepting failed with `errno` (EMFILE, ENOMEM, …) and rests for a moment. */
  onAcceptError(errno: number): void;
}

export interface EngineOptions {
  /** Where the clock and the totals are kept: the worker's block of the scoreboard. */
  readonly totals?: Float64Array;
  /** Connections at once; default: what RLIMIT_NOFILE allows. */
  readonly slots?: number;
}

/** A slot's counters (layout.ts: COUNTER). The clocks are `Engine.now`, which is the same in every process. */
export interface SlotCounters {
  readonly received: number;
  readonly sent: number;
  readonly receivedAt: number;
  readonly progressAt: number;
}

export interface ReleasedSlot extends SlotCounters {
  readonly fd: number;
  readonly unsent: Uint8Array;
  /** Its place in the admission table, which is still taken; ENTRY.notCounted: it has none. */
  readonly entry: number;
}

export interface AdoptOptions {
  /** Its place in the admission table, as released; ENTRY.notCounted: it takes one, whatever the limits. */
  readonly entry: number;
  /** Its client, where that may be another than the socket's peer (see `admit`). */
  readonly peer?: { readonly host: string; readonly port: number };
  /** Where its counters stood. Default: a connection that begins now. */
  readonly counters?: SlotCounters;
}

/** The shared memory that engines count in: see src/os/admission-table.ts. */
export interface SharedAdmission {
  readonly words: Int32Array;
  /** Descriptors of the memory and of its eventfd, which must stay open. Without: addresses are not counted. */
  readonly fd?: number;
  readonly wakeFd?: number;
}

/** How a listener treats newcomers. */
export interface ClientRule {
  /** Connections of one address. */
  readonly connections: number | "off";
  /** Connects a second of one address, */
  readonly rate: number | "off";
  /** and how many of them at once. */
  readonly burst: number;
  /** Listeners with the same number count together. */
  readonly space: number;
  /** Bits of an IPv6 address that make it the same client. */
  readonly ipv6Prefix: number;
  readonly onLimit: OnLimit;
  /** Who connects is a proxy: only who `admit` names is listed and counted. */
  readonly namedLater: boolean;
}

/** Addresses as ranges: see Addon.engineList. */
export interface AddressRanges {
  readonly starts: Uint8Array;
  readonly denied: Uint8Array;
}

/** In the order of native/admission.h. */
const ON_LIMIT: readonly OnLimit[] = ["reset", "close", "wait"];
const NS = 1e9;
const NO_BYTES = new Uint8Array(0);
const SERVER_NAME = /^[!-~]{0,253}$/;

const SLOTS_MAX = 1 << 18;
/** 64 connections each: as many as the longest queue holds. */
const QUEUE_TURNS = 1024;

/** The soft limit of descriptors (Node raises it to the hard one at start). */
export function descriptorLimit(): number {
  return openFilesLimit() ?? SLOTS_MAX;
}

export class Engine {
  /** Replies are encoded here, at the offset that `reserve` returns. */
  readonly output: Buffer;
  /** Per slot: bytes taken for sending that the kernel has not taken yet. */
  readonly unsent: Int32Array;
  /** Per slot, COUNTER.words each. */
  readonly counters: Float64Array;
  /** Slots of connections that were made from here (src/client), among those that are `open`. They count them here. */
  outbound = 0;
  readonly datagrams: Datagrams;
  /** By which requests are timed. */
  readonly laps: Laps = new Laps();

  readonly #handle: EngineHandle;
  readonly #memory: EngineMemory;
  readonly #header: Int32Array;
  readonly #records: Int32Array;
  readonly #generations: Int32Array;
  readonly #totals: Float64Array;
  readonly #owners: (SlotOwner | undefined)[] = [];
  readonly #acceptors = new Map<number, Acceptor>();
  readonly #ticks: (() => void)[] = [];
  readonly #rounds: (() => void)[] = [];
  readonly #ends: (() => void)[] = [];
  readonly #timer: NodeJS.Timeout;
  /** What `share` wrote last, where, and after which flush. */
  #shared: Uint8Array | undefined;
  #sharedAt = 0;
  #sharedFlush = -1;
  #closed = false;
  /** Input records are being read: nothing may write new ones over them. */
  #reading = false;

  /** Throws `engine-thread` off the main thread, `system` when the kernel refuses. */
  constructor(options: EngineOptions = {}) {
    if (!isMainThread) throw threadError();
    const slots = options.slots ?? Math.min(descriptorLimit(), SLOTS_MAX);
    this.output = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
    this.#memory = {
      header: new Int32Array(HEADER.words),
      totals: options.totals ?? new Float64Array(TOTALS),
      input: Buffer.allocUnsafeSlow(INPUT_BYTES),
      inputRecords: new Int32Array(INPUT_RECORDS * INPUT.words),
      output: this.output,
      outputRecords: new Int32Array(OUTPUT_RECORDS * OUTPUT.words),
      generations: new Int32Array(slots),
      unsent: new Int32Array(slots),
      counters: new Float64Array(slots * COUNTER.words),
      pinned: new Set(),
    };
    this.#header = this.#memory.header;
    this.#records = this.#memory.outputRecords;
    this.#generations = this.#memory.generations;
    this.#totals = this.#memory.totals;
    this.unsent = this.#memory.unsent;
    this.counters = this.#memory.counters;
    const handle = addon().engineOpen(this.#memory, (count) => this.#round(count));
    if (handle === -1) throw threadError();
    this.#handle = check(handle, "opening the engine");
    this.datagrams = new Datagrams(this.#handle, this.#memory, {
      flush: () => this.flush(),
      read: (count) => this.#round(count),
      reading: () => this.#reading,
    });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  /**
   * Monotonic clock, ms: that of the current round or tick (CLOCK_MONOTONIC_COARSE). The same in every process, and at
   * most 4 ms behind process.hrtime().
   */
  get now(): number {
    return this.#totals[TOTAL_CLOCK] as number;
  }

  /** The clock as of this moment, ms: for what must be right in the midst of a long turn, or outside any. */
  clock(): number {
    // Not performance.now() and the distance between the two: whoever measures that may be interrupted meanwhile.
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1e3 + nanoseconds / 1e6;
  }

  /** Slots in use: connections, and closed ones whose last bytes are still on their way. */
  get open(): number {
    return this.#header[HEADER.open] as number;
  }

  /** Size of all buffers of unsent bytes, also of closed connections whose last bytes are on their way. */
  get bytesHeldOut(): number {
    return this.#totals[TOTAL_BYTES_HELD_OUT] as number;
  }

  /** Calls `done` after each round, when everything that came in it was heard. */
  onRound(done: () => void): void {
    this.#rounds.push(done);
  }

  /** Calls `done` when the engine has been shut down: its slots are gone. */
  onShutdown(done: () => void): void {
    this.#ends.push(done);
  }

  /** From now on the engine by itself does not keep the process alive. */
  unref(): void {
    addon().engineUnref(this.#handle);
  }

  /** Calls `tick` every TICK_MS, after the clock was advanced. */
  onTick(tick: () => void): void {
    this.#ticks.push(tick);
  }

  /**
   * Accepts connections of `listener` (0 to 63) from the listening socket `fd`, which stays the caller's. `watch`
   * (0 to 16383) names it: a listener may have several, and one acceptor, the last given. `linger` as in SocketOptions.
   */
  listen(watch: number, listener: number, fd: number, acceptor: Acceptor, linger: Deadline = "off"): void {
    check(addon().engineListen(this.#handle, watch, listener, fd, lingerMs(linger)), "accepting");
    this.#acceptors.set(listener, acceptor);
  }

  /**
   * Accepts no more there; with `queued`, first what waits, but not inside a round. What was accepted lives on.
   * Idempotent.
   */
  unlisten(watch: number, { queued }: { readonly queued: boolean }): void {
    for (let turn = 0; queued && !this.#reading && turn < QUEUE_TURNS; turn++) {
      const count = addon().engineAcceptQueued(this.#handle, watch);
      if (count === 0) break;
      this.#round(count);
    }
    addon().engineUnlisten(this.#handle, watch);
  }

  /** See Addon.engineAdmission. */
  limit({ words, fd = -1, wakeFd = -1 }: SharedAdmission, column: number, caps: Int32Array): void {
    check(addon().engineAdmission(this.#handle, words, column, caps, fd, wakeFd), "admission");
  }

  /** How `listener` treats newcomers from now on. Clients that are there are counted by their addresses too. */
  rule(listener: number, { connections, rate, burst, space, ipv6Prefix, onLimit, namedLater }: ClientRule): void {
    const words = new Float64Array(RULE.words);
    const intervalNs = rate === "off" ? 0 : Math.ceil(NS / rate);
    words[RULE.connections] = connections === "off" ? 0 : connections;
    words[RULE.intervalNs] = intervalNs;
    words[RULE.burstNs] = intervalNs * burst;
    words[RULE.space] = space;
    words[RULE.prefix] = ipv6Prefix;
    words[RULE.onLimit] = ON_LIMIT.indexOf(onLimit);
    words[RULE.namedLater] = Number(namedLater);
    check(addon().engineRule(this.#handle, listener, words), "admission");
  }

  /** Which addresses `listener` accepts from now on. */
  list(listener: number, { starts, denied }: AddressRanges): void {
    check(addon().engineList(this.#handle, listener, starts, denied), "admission");
  }

  /**
   * The client behind a proxy has been named: from now on it is that address which is listed, counted and shown.
   * Returns why it may not come; then nothing has changed, and closing the slot is the caller's. A slot that is no
   * longer open admits anybody.
   */
  admit(slot: number, generation: number, host: string, port: number): RejectReason | undefined {
    const verdict = addon().engineAdmit(this.#handle, slot, generation, host, port);
    return verdict > 0 ? REJECT_REASONS[verdict - 1] : undefined;
  }

  /**
   * Begins to connect; the owner hears `onOpen` once connected, or `onError`. Returns the slot, or a negative errno when it
   * fails at once (no source port, no descriptor).
   */
  connect(host: string, port: number, localHost: string, options: Int32Array, owner: SlotOwner): number {
    const slot = addon().engineConnect(this.#handle, host, port, localHost, options);
    if (slot >= 0) this.#owners[slot] = owner;
    return slot;
  }

  /** The linger of the connections that `listener` gets from now on, accepted or adopted. */
  linger(listener: number, linger: Deadline): void {
    check(addon().engineLinger(this.#handle, listener, lingerMs(linger)), "linger");
  }

  /**
   * Takes a connected descriptor over as a connection of `listener`. Whatever waits in it is announced again: unread
   * bytes, the peer's FIN. What its last owner asked for (pause, finish, a mark) is forgotten. Returns the slot;
   * throws `system`, and then the descriptor is still the caller's.
   */
  adopt(listener: number, fd: number, owner: SlotOwner, options: AdoptOptions): number {
    const { entry, peer, counters } = options;
    const [host, port] = [peer?.host ?? "", peer?.port ?? 0];
    const slot = check(addon().engineAdopt(this.#handle, listener, fd, entry, host, port), "adopting a connection");
    this.#owners[slot] = owner;
    const at = slot * COUNTER.words;
    if (counters) {
      this.counters[at + COUNTER.received] = counters.received;
      this.counters[at + COUNTER.sent] = counters.sent;
      this.counters[at + COUNTER.receivedAt] = counters.receivedAt;
      this.counters[at + COUNTER.progressAt] = counters.progressAt;
    }
    return slot;
  }

  /**
   * Gives a connection up unclosed; descriptor, unsent bytes and its place in the admission table are the caller's.
   * Throws when it is not open, and inside a round, whose records may still hold bytes of it. One with TLS cannot be
   * given up (ENOTSUP): its keys are OpenSSL's.
   */
  release(slot: number, generation: number): ReleasedSlot {
    this.flush();
    const released = check(addon().engineRelease(this.#handle, slot, generation), "releasing a connection");
    this.#owners[slot] = undefined;
    const at = slot * COUNTER.words;
    const counter = (index: number): number => this.counters[at + index] as number;
    return {
      ...released,
      received: counter(COUNTER.received),
      sent: counter(COUNTER.sent),
      receivedAt: counter(COUNTER.receivedAt),
      progressAt: counter(COUNTER.progressAt),
    };
  }

  /**
   * Begins TLS on an open slot; its owner hears `onSecured`, and no data before that. What fails, then or later, is
   * `onError(EPROTO)`, and `tlsError` says why; a peer that leaves instead is `onEnd`, as its close_notify is. Nothing
   * may be sent before `onSecured`. The slot's counters begin anew with it, and count plaintext. A slot that is not
   * open any more: nothing happens, its owner is told why it is not. Throws `tls-invalid` for a session or a name that is none, and
   * `system` when the slot has TLS already.
   */
  secure(slot: number, generation: number, context: TlsContext, options: SecureOptions = {}): void {
    const { early = NO_BYTES, serverName = "", session = NO_BYTES } = options;
    if (!SERVER_NAME.test(serverName)) {
      throw new HeadraceError("tls-invalid", `not a server's name: ${JSON.stringify(serverName)}`, {
        given: serverName,
        allowed: "ASCII, at most 253 characters",
      });
    }
    this.flush();
    const result = addon().engineSecure(this.#handle, slot, generation, context, early, serverName, session);
    if (result === -constants.errno.EBADF) return;
    if (result === -constants.errno.EINVAL) {
      throw new HeadraceError("tls-invalid", "the TLS session is not one that OpenSSL understands");
    }
    check(result, "beginning TLS");
  }

  /** What TLS knows of a secured slot. Undefined before `onSecured`, and for one without TLS. */
  tls(slot: number, generation: number): TlsInfo | undefined {
    const info = addon().engineTls(this.#handle, slot, generation);
    return typeof info === "number" ? undefined : info;
  }

  /** Why TLS on the slot failed, in OpenSSL's words; "" when it did not. To be asked in `onError`. */
  tlsError(slot: number, generation: number): string {
    const reason = addon().engineTlsError(this.#handle, slot, generation);
    return typeof reason === "number" ? "" : reason;
  }

  /**
   * Client side: the session by which a later connection to the same server may be resumed. It comes some time after
   * `onSecured`, if at all (TLS 1.3): to be asked when the connection ends. A secret: never to be logged.
   */
  tlsSession(slot: number, generation: number): Uint8Array | undefined {
    const session = addon().engineTlsSession(this.#handle, slot, generation);
    return typeof session === "number" || session.length === 0 ? undefined : session;
  }

  /**
   * Resets connections that are closed and hold unsent bytes, the oldest first, until so many bytes are free. Returns
   * how many were freed.
   */
  abandon(bytes: number): number {
    return this.#closed ? 0 : addon().engineAbandon(this.#handle, bytes);
  }

  /** Gives back the place, if it has one, of a released connection that lives on elsewhere, or nowhere. */
  leave(listener: number, entry: number): void {
    if (entry !== ENTRY.notCounted) addon().engineLeave(this.#handle, listener, entry);
  }

  /** The slot has another owner from now on, unless it has been closed. The new one hears nothing of what was before. */
  own(slot: number, generation: number, owner: SlotOwner): void {
    if (this.#owners[slot] && this.#generations[slot] === generation) this.#owners[slot] = owner;
  }

  /** Who owns the slot, if anyone does. */
  owner(slot: number): SlotOwner | undefined {
    return this.#owners[slot];
  }

  /** One more than the highest slot that was ever in use. */
  get slots(): number {
    return this.#owners.length;
  }

  /** Everyone who owns a slot now. */
  owners(): SlotOwner[] {
    return this.#owners.filter((owner) => owner !== undefined);
  }

  generation(slot: number): number {
    return this.#generations[slot] as number;
  }

  /** The peer's address, "" once the slot is closed. An IPv4 client of an IPv6 listener has its IPv4 address. */
  peer(slot: number, generation: number): { host: string; port: number } {
    const text = addon().engineAddress(this.#handle, slot, generation);
    if (typeof text === "number") return { host: "", port: 0 };
    const space = text.indexOf(" ");
    const host = text.slice(0, space);
    return { host: /^::ffff:\d+\./.test(host) ? host.slice(7) : host, port: Number(text.slice(space + 1)) };
  }

  /** The peer's address as `Addon.engineWritePeer` has it; zeros once the slot is closed. */
  writePeer(slot: number, generation: number, into: Uint8Array): void {
    addon().engineWritePeer(this.#handle, slot, generation, into);
  }

  /** What the kernel knows of the way to the peer; undefined once the socket has gone. One system call. */
  timing(slot: number, generation: number): { readonly rttMs: number; readonly retransmits: number } | undefined {
    const words = new Uint32Array(2);
    const result = addon().engineTiming(this.#handle, slot, generation, new Uint8Array(words.buffer));
    if (result < 0) return undefined;
    return { rttMs: (words[0] as number) / 1_000, retransmits: words[1] as number };
  }

  /** What reading the slot would find now, as PEEKED says it, or a negative errno. One system call. */
  peek(slot: number, generation: number): number {
    return addon().enginePeek(this.#handle, slot, generation);
  }

  /** Bytes that have arrived and were not read yet. */
  unread(slot: number, generation: number): number {
    return Math.max(0, addon().engineUnread(this.#handle, slot, generation));
  }

  /** Offset in `output` where `size` bytes may be written, or -1 when they do not fit: use `sendLarge`. */
  reserve(size: number): number {
    let at = this.#header[HEADER.outputBytes] as number;
    if (at + size > OUTPUT_BYTES || (this.#header[HEADER.outputRecords] as number) >= OUTPUT_RECORDS) {
      if (size > OUTPUT_BYTES) return -1;
      this.flush();
      at = 0;
    }
    return at;
  }

  /** Sends `output[at, at + size)` as reserved. Joined with the record before it when both are this slot's. */
  submit(slot: number, generation: number, at: number, size: number, coalesce: boolean): void {
    if (this.#generations[slot] !== generation) return;
    const records = this.#records;
    const count = this.#header[HEADER.outputRecords] as number;
    this.#header[HEADER.outputBytes] = at + size;
    this.unsent[slot] = (this.unsent[slot] as number) + size;
    let index = (count - 1) * OUTPUT.words;
    if (
      coalesce &&
      count > 0 &&
      records[index] === OUTPUT.send &&
      records[index + 1] === slot &&
      records[index + 2] === generation &&
      (records[index + 3] as number) + (records[index + 4] as number) === at
    ) {
      records[index + 4] = (records[index + 4] as number) + size;
      return;
    }
    index += OUTPUT.words;
    records[index] = coalesce ? OUTPUT.send : OUTPUT.sendAlone;
    records[index + 1] = slot;
    records[index + 2] = generation;
    records[index + 3] = at;
    records[index + 4] = size;
    this.#header[HEADER.outputRecords] = count + 1;
  }

  /**
   * Offset of `bytes` in the arena, for `submitShared`, or -1 when they do not fit. Written there once for all who send
   * them before the next flush.
   */
  share(bytes: Uint8Array): number {
    const header = this.#header;
    const full = (header[HEADER.outputRecords] as number) >= OUTPUT_RECORDS;
    if (this.#shared === bytes && this.#sharedFlush === header[HEADER.flushes] && !full) return this.#sharedAt;
    const at = this.reserve(bytes.length);
    if (at < 0) return at;
    this.output.set(bytes, at);
    header[HEADER.outputBytes] = at + bytes.length;
    this.#shared = bytes;
    this.#sharedAt = at;
    this.#sharedFlush = header[HEADER.flushes] as number;
    return at;
  }

  /** Sends `output[at, at + size)` as shared. */
  submitShared(slot: number, generation: number, at: number, size: number): void {
    if (this.#generations[slot] !== generation) return;
    this.unsent[slot] = (this.unsent[slot] as number) + size;
    this.#command(OUTPUT.send, slot, generation, at, size);
  }

  /** Sends a message too large for the arena, at once. */
  sendLarge(slot: number, generation: number, bytes: Uint8Array): void {
    if (this.#generations[slot] !== generation) return;
    this.unsent[slot] = (this.unsent[slot] as number) + bytes.length;
    addon().engineSend(this.#handle, slot, generation, bytes);
  }

  /** Asks for `onWritable` once the slot's unsent bytes are below `mark` (at least 1). */
  notifyBelow(slot: number, generation: number, mark: number): void {
    this.#command(OUTPUT.notify, slot, generation, mark);
  }

  pause(slot: number, generation: number): void {
    this.#command(OUTPUT.pause, slot, generation, 0);
  }

  resume(slot: number, generation: number): void {
    this.#command(OUTPUT.resume, slot, generation, 0);
  }

  /** FIN after what is unsent; receiving goes on. */
  finish(slot: number, generation: number): void {
    this.#command(OUTPUT.finish, slot, generation, 0);
  }

  /**
   * Closes once what is unsent has been sent, which must go on at least every `flushMs`; a connect under way is given
   * up. The slot is no longer the caller's.
   */
  close(slot: number, generation: number, flushMs: number): void {
    this.#owners[slot] = undefined;
    this.#command(OUTPUT.close, slot, generation, Math.ceil(flushMs));
  }

  /** RST, and what is unsent is dropped; the slot is no longer the caller's. */
  reset(slot: number, generation: number): void {
    this.#owners[slot] = undefined;
    this.#command(OUTPUT.reset, slot, generation, 0);
  }

  /** Carries the records out now. Never calls an owner. */
  flush(): void {
    if (!this.#closed) addon().engineFlush(this.#handle);
  }

  /** Resets every connection. The listening sockets are the caller's to close. Idempotent. */
  shutdown(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.datagrams.shut();
    clearInterval(this.#timer);
    this.#owners.length = 0;
    addon().engineClose(this.#handle);
    for (const done of this.#ends) done();
  }

  #command(kind: number, slot: number, generation: number, a: number, b = 0): void {
    let count = this.#header[HEADER.outputRecords] as number;
    if (count >= OUTPUT_RECORDS) {
      this.flush();
      count = 0;
    }
    const index = count * OUTPUT.words;
    this.#records[index] = kind;
    this.#records[index + 1] = slot;
    this.#records[index + 2] = generation;
    this.#records[index + 3] = a;
    this.#records[index + 4] = b;
    this.#header[HEADER.outputRecords] = count + 1;
  }

  #accept(listener: number, slot: number): void {
    const owner = this.#acceptors.get(listener)?.onAccept(slot, this.generation(slot));
    this.#owners[slot] = owner;
    owner?.onOpen();
  }

  #tick(): void {
    addon().engineTick(this.#handle);
    for (const tick of this.#ticks) tick();
  }

  #round(count: number): void {
    this.#reading = true;
    this.laps.start();
    try {
      this.#read(count);
    } finally {
      this.#reading = false;
      this.laps.stop();
    }
    for (const done of this.#rounds) done();
  }

  #read(count: number): void {
    const records = this.#memory.inputRecords;
    const input = this.#memory.input as Buffer;
    const owners = this.#owners;
    for (let index = 0; index < count * INPUT.words && !this.#closed; index += INPUT.words) {
      const slot = records[index + 1] as number;
      const a = records[index + 2] as number;
      if (records[index] === INPUT.data) {
        // No owner: an earlier record of this round made JavaScript close it.
        owners[slot]?.onData(input, a, a + (records[index + 3] as number));
        continue;
      }
      if (records[index] === INPUT.datagram) {
        this.datagrams.receivers[slot]?.onDatagram(a, records[index + 3] as number);
        continue;
      }
      // What is done now is no request's work.
      this.laps.forget();
      switch (records[index]) {
        case INPUT.accept:
          this.#accept(a, slot);
          break;
        case INPUT.end:
          owners[slot]?.onEnd();
          break;
        case INPUT.error:
          owners[slot]?.onError(a);
          break;
        case INPUT.connected:
          owners[slot]?.onOpen();
          break;
        case INPUT.writable:
          owners[slot]?.onWritable();
          break;
        case INPUT.blocked:
          owners[slot]?.onBlocked();
          break;
        case INPUT.secured:
          owners[slot]?.onSecured?.();
          break;
        case INPUT.acceptError:
          this.#acceptors.get(slot)?.onAcceptError(a);
          break;
      }
      this.laps.forget();
    }
  }
}

/** As the addon has it. */
function lingerMs(linger: Deadline): number {
  return linger === "off" ? -1 : linger;
}

function threadError(): HeadraceError {
  return new HeadraceError(
    "engine-thread",
    "the engine runs on a process's main thread only; from a worker thread, send the work to the process that owns it",
  );
}

/** Errors by which a peer's going shows. */
export function isPeerReset(errno: number): boolean {
  const name = errnoName(errno);
  return name === "ECONNRESET" || name === "EPIPE";
}

/** What a record or a handshake that TLS does not accept shows as; `Engine.tlsError` says why. */
export function isTlsFault(errno: number): boolean {
  return errno === constants.errno.EPROTO;
}
