/**
 * One connection of a client, from its first SYN on. It owns an engine slot until `#close`, which happens once, for one
 * reason; a connection that has closed for any reason never serves again. Attempts (attempt.ts) hear what becomes of a
 * connect, the pool hears when there is room for another call and when the connection has gone.
 */
import { HeadraceError, messageOf } from "../base/errors.ts";
import { INVALID, NEED_MORE } from "../codec/codec.ts";
import { Held } from "../codec/held.ts";
import { type Engine, isPeerReset, type SlotOwner } from "../engine/engine.ts";
import { COUNTER, PEEKED } from "../engine/layout.ts";
import { errnoName } from "../os/errno.ts";
import type { Call } from "./call.ts";
import type { Eviction, Outcome } from "./counters.ts";
import type { Exchange, Line } from "./exchange.ts";
import type { ClientSettings } from "./settings.ts";
import type { ClientTls } from "./tls.ts";

/** Who waits for a connect. */
export interface Connecting {
  connected(connection: PooledConnection): void;
  /** `problem` is an errno's name. */
  refused(connection: PooledConnection, problem: string, detail?: string): void;
}

/** The target it belongs to. */
export interface Home {
  readonly engine: Engine;
  readonly settings: ClientSettings;
  readonly tls: ClientTls | undefined;
  /** Calls under way on all its connections. */
  inFlight: number;
  settle(call: Call, outcome: Outcome, value: unknown): void;
  late(): void;
  /** It has got another call. */
  filled(connection: PooledConnection): void;
  /** There may be room on it for another call. */
  changed(connection: PooledConnection): void;
  /** It has closed; `calls` were under way, and `error` says what became of them. */
  gone(connection: PooledConnection, eviction: Eviction, calls: readonly Call[], error: HeadraceError): void;
}

/** `securing`: the TLS handshake goes on. `leaving`: takes no more calls, and closes with its last one. */
type Phase = "connecting" | "securing" | "open" | "leaving" | "closed";

/** What is unsent when a connection is closed has so long to leave, ms. */
const FLUSH_MS = 1_000;
/** Unsent bytes past which it gets no more calls, and those below which it does again. */
const HIGH_BYTES: number = 256 * 1024;
const LOW_BYTES: number = HIGH_BYTES / 2;
/**
 * So many calls may wait in vain, each begun when the one before had, while not a byte comes: then it gets no more, and
 * others are asked on a new one, which shows whether the target is there. Calls side by side share one silence, however
 * many of them expire in it.
 */
const STRIKES = 3;
/** What closes a connection that owes nothing: it may end as the client likes. */
const IN_ORDER: ReadonlySet<Eviction> = new Set(["idle", "surplus", "goodbye", "ids-used-up", "closing"]);
/** Bytes that clients hold are bounded by their frames and their connections. */
const UNCOUNTED = { add(): void {} };

export class PooledConnection implements SlotOwner, Line {
  readonly address: string;
  readonly exchange: Exchange;
  /** Engine clock, ms, of the last reply, or of its opening. */
  idleSince = 0;
  /** A call was sent on it, */
  asked = false;
  /** and the server has answered. */
  proven = false;
  /** Its target lists it among those that have room. */
  listed = false;
  /** Cursor of the codec. */
  seen = 0;
  mode = 0;
  #phase: Phase = "connecting";
  /** Why it takes no more calls. */
  #leavesBy: Eviction = "goodbye";
  #slot = -1;
  #generation = 0;
  #received = 0;
  #strikes = 0;
  /** Number of the present silence: another one begins with each byte, and with each strike. */
  #silence = 0;
  #backedUp = false;
  #held: Held | undefined;
  readonly #home: Home;
  readonly #connecting: Connecting;

  constructor(home: Home, connecting: Connecting, address: string, exchange: Exchange) {
    this.#home = home;
    this.#connecting = connecting;
    this.address = address;
    this.exchange = exchange;
  }

  get closed(): boolean {
    return this.#phase === "closed";
  }

  get quiet(): boolean {
    return this.exchange.inFlight === 0;
  }

  get hasRoom(): boolean {
    const { inFlight, capacity, usedUp } = this.exchange;
    return this.#phase === "open" && inFlight < capacity && !usedUp && !this.#backedUp;
  }

  /** Begins to connect. False when it failed at once, which is reported. */
  connect(host: string, port: number): boolean {
    const { engine, settings } = this.#home;
    const slot = engine.connect(host, port, settings.localAddress, settings.socket, this);
    if (slot < 0) {
      this.#phase = "closed";
      this.#connecting.refused(this, errnoName(slot));
      return false;
    }
    this.#slot = slot;
    this.#generation = engine.generation(slot);
    engine.outbound += 1;
    return true;
  }

  /**
   * Whether a connection that has been quiet may serve again, which costs one system call: the peer may have closed it,
   * or sent something, that the engine comes to tell only later. `unsure`: something has come, look again.
   */
  check(): "fit" | "unsure" | "unfit" {
    const { engine } = this.#home;
    const justOpened = !this.proven && this.idleSince === engine.now;
    if (!this.quiet || justOpened) return "fit";
    const received = engine.counters[this.#slot * COUNTER.words + COUNTER.received];
    const found = received === this.#received ? engine.peek(this.#slot, this.#generation) : PEEKED.bytes;
    if (found === PEEKED.quiet) return "fit";
    // A frame of rpc's own, or a record of TLS's.
    if (found === PEEKED.bytes && (this.exchange.capacity > 1 || this.#home.tls)) return "unsure";
    if (found === PEEKED.bytes) this.end("unexpected-data");
    else this.end(found === PEEKED.end ? "peer-closed" : "io-error");
    return "unfit";
  }

  /** Sends a call. Throws when its message cannot be encoded; then nothing has changed. */
  begin(call: Call, leftMs: number): void {
    this.exchange.begin(call, leftMs, this);
    call.connection = this;
    call.silence = this.#silence;
    this.asked = true;
    this.#home.inFlight += 1;
    this.#home.filled(this);
  }

  /** Nobody waits for the call any more. `expired`: because its time is up. */
  giveUp(call: Call, expired: boolean): void {
    const useful = this.exchange.giveUp(call, this);
    this.#home.inFlight -= 1;
    if (expired && call.silence === this.#silence) {
      this.#strikes += 1;
      this.#silence += 1;
    }
    if (this.#strikes >= STRIKES && this.#phase === "open") {
      this.#phase = "leaving";
      this.#leavesBy = "silent";
    }
    if (!useful) this.end("given-up");
    else this.#settle();
  }

  /** Closes it. What is under way fails. */
  end(eviction: Eviction, error: HeadraceError = lostError(this.address, eviction)): void {
    if (this.#phase === "closed") return;
    const calls = this.exchange.abandon();
    this.#close(eviction, calls.length === 0);
    this.#home.inFlight -= calls.length;
    this.#home.gone(this, eviction, calls, error);
  }

  /** Another address was faster, or there was no time left: nobody hears of it. */
  drop(): void {
    if (this.#phase !== "closed") this.#close("closing", false);
  }

  // ---- what the exchange says ----

  write(message: unknown): void {
    const { engine, settings } = this.#home;
    const { codec } = this.exchange;
    const [slot, generation] = [this.#slot, this.#generation];
    const size = codec.sizeOf(message);
    const at = engine.reserve(size);
    if (at >= 0) {
      const written = codec.encodeInto(message, engine.output, at, settings.frame);
      engine.submit(slot, generation, at, written, true);
    } else {
      const bytes = Buffer.allocUnsafe(size);
      engine.sendLarge(slot, generation, bytes.subarray(0, codec.encodeInto(message, bytes, 0, settings.frame)));
    }
    if ((engine.unsent[slot] as number) <= HIGH_BYTES || this.#backedUp) return;
    // Before a flush, most of it may just not have left yet.
    engine.flush();
    if ((engine.unsent[slot] as number) <= HIGH_BYTES) return;
    this.#backedUp = true;
    engine.notifyBelow(slot, generation, LOW_BYTES);
  }

  answered(call: Call, outcome: Outcome, value: unknown): void {
    if (!this.proven) this.#prove();
    this.#home.inFlight -= 1;
    this.#home.settle(call, outcome, value);
  }

  late(): void {
    this.#home.late();
  }

  goodbye(last: boolean): void {
    // What it has not answered by then it never began: pool.ts knows by the reason.
    if (last) this.end("goodbye");
    else if (this.#phase === "open") this.#phase = "leaving";
  }

  // ---- what the engine says ----

  onOpen(): void {
    const { engine, tls } = this.#home;
    if (!tls) {
      this.#opened();
      return;
    }
    this.#phase = "securing";
    try {
      tls.secure(engine, this.#slot, this.#generation);
    } catch (error) {
      this.#refused("EPROTO", messageOf(error));
    }
  }

  onSecured(): void {
    this.#home.tls?.secured(this.#home.engine, this.#slot, this.#generation);
    this.#opened();
  }

  onData(input: Buffer, from: number, to: number): void {
    this.#home.engine.laps.forget();
    this.#received += to - from;
    this.#strikes = 0;
    this.#silence += 1;
    const held = this.#held;
    if (held) {
      held.append(input, from, to);
      const used = this.#read(held.bytes, held.from, held.to);
      if (used < held.to) held.use(used);
      else this.#held = undefined;
    } else {
      const used = this.#read(input, from, to);
      if (used < to) this.#held = new Held(UNCOUNTED, input, used, to);
    }
    this.#home.engine.laps.forget();
    this.#settle();
  }

  onEnd(): void {
    if (this.#isConnecting) this.#refused("ECONNRESET");
    // Also after a goodbye: the kernel sends FIN for a process that was killed, whatever that had begun.
    else this.end("peer-closed");
  }

  onError(errno: number): void {
    const { engine, tls } = this.#home;
    if (this.#isConnecting) this.#refused(errnoName(errno), tls && engine.tlsError(this.#slot, this.#generation));
    else this.end(isPeerReset(errno) ? "peer-reset" : "io-error");
  }

  onWritable(): void {
    this.#backedUp = false;
    this.#settle();
  }

  onBlocked(): void {
    // The deadlines of the calls bound it.
  }

  get #isConnecting(): boolean {
    return this.#phase === "connecting" || this.#phase === "securing";
  }

  #opened(): void {
    this.#phase = "open";
    this.idleSince = this.#home.engine.now;
    this.#connecting.connected(this);
  }

  #prove(): void {
    this.proven = true;
    // By now whatever the handshake still had to give has come.
    this.#home.tls?.keep(this.#home.engine, this.#slot, this.#generation);
  }

  #refused(problem: string, detail?: string): void {
    this.#close("io-error", false);
    this.#connecting.refused(this, problem, detail);
  }

  /** Cuts replies; returns how far it came, which is the end once the connection has closed. */
  #read(bytes: Buffer, from: number, to: number): number {
    const { exchange } = this;
    const { codec } = exchange;
    try {
      while (from < to && !this.closed) {
        if (exchange.capacity === 1 && exchange.inFlight === 0) {
          this.end("unexpected-data");
          break;
        }
        const used = codec.decode(bytes, from, to, this, this.#home.settings.frame);
        if (used === NEED_MORE) return from;
        if (used === INVALID) this.end("protocol-error", invalidReply(this.address, codec.fault));
        else if (used < 0) from += -1 - used;
        else if (exchange.take(codec.message, this)) from += used;
        else this.end("unexpected-data");
      }
    } catch (error) {
      this.end("protocol-error", invalidReply(this.address, messageOf(error)));
    }
    return to;
  }

  #settle(): void {
    if (this.#phase !== "open" && this.#phase !== "leaving") return;
    if (this.quiet) {
      this.idleSince = this.#home.engine.now;
      if (this.#phase === "leaving") this.end(this.#leavesBy);
      else if (this.exchange.usedUp) this.end("ids-used-up");
    }
    if (!this.closed) this.#home.changed(this);
  }

  #close(eviction: Eviction, quiet: boolean): void {
    const { engine, settings } = this.#home;
    this.#phase = "closed";
    this.#held = undefined;
    const inOrder = IN_ORDER.has(eviction) && quiet && settings.close === "fin";
    if (inOrder || eviction === "peer-closed") engine.close(this.#slot, this.#generation, FLUSH_MS);
    else engine.reset(this.#slot, this.#generation);
    engine.outbound -= 1;
  }
}

function lostError(address: string, eviction: Eviction): HeadraceError {
  return new HeadraceError("connection-closed", `the connection to ${address} was lost (${eviction})`, {
    given: eviction,
    address,
  });
}

function invalidReply(address: string, problem: string): HeadraceError {
  return new HeadraceError("reply-invalid", `${address} sent what is no reply: ${problem}`, {
    given: problem,
    address,
  });
}
