/**
 * The datagrams of one listener in one worker: handler, reply, counters. One object for all of them: nothing is made
 * for a datagram, unless its handler returns a promise. Then message and `from` are left to it, its reply goes where it
 * came from, and until then it counts as in flight.
 *
 * What may go to a source that is not verified is counted where the engine counts what came from it, in the table of
 * sources that both share (native/source.h); JavaScript only ever takes from a credit.
 */
import { DeadlineExceeded, HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Limits, Timeouts } from "../base/settings.ts";
import { isThenable } from "../base/thenable.ts";
import { copyBytes } from "../codec/bytes.ts";
import type { Receiver } from "../engine/datagrams.ts";
import {
  DATAGRAMS_WAITING,
  END,
  END_BYTES,
  SOURCE,
  SOURCE_NONE,
  SOURCE_SILENT_MS,
  SOURCE_VERIFIED,
} from "../engine/layout.ts";
import { DATAGRAM_FIELDS, type DatagramField, LISTENER_DATAGRAMS, LISTENER_FIELDS } from "../os/scoreboard.ts";
import type { SendResult } from "../service/connection.ts";
import type { AnyUdpService } from "../service/udp.ts";
import type { TaskPool } from "../tasks/pool.ts";
import { BorrowedMessage, ownMessage } from "./datagram-message.ts";
import { Source, type SourceOwner } from "./datagram-source.ts";
import { msOf } from "./deadlines.ts";
import { inFlightMarkOf, refusalOf } from "./endpoint.ts";
import type { Gate } from "./gate.ts";
import { NO_TICKET } from "./in-flight.ts";
import { observe, type Timing } from "./timing.ts";

/** What it asks of the engine. The harness of testDatagrams is the other implementation. */
export interface DatagramTransport {
  readonly input: Buffer;
  readonly inputWords: Int32Array;
  readonly output: Buffer;
  readonly outputWords: Int32Array;
  readonly sources: Int32Array;
  readonly waiting: number;
  sends(listener: number): boolean;
  reserve(size: number): number;
  submit(listener: number, at: number, size: number): void;
  source(end: Int32Array, take: boolean): number;
}

export interface DatagramOptions {
  readonly listener: string;
  /** Its row in the engine and in the scoreboard. */
  readonly index: number;
  readonly service: AnyUdpService;
  readonly env: unknown;
  readonly transport: DatagramTransport;
  /** Engine clock, ms. */
  readonly now: () => number;
  readonly limits: Limits;
  readonly timeouts: Timeouts;
  /** The listener's row in the scoreboard. */
  readonly row: Float64Array;
  readonly timing: Timing;
  readonly gate: Gate;
  readonly log: Logger;
  /** A `from` or a message that is kept too long is spoiled, so that it shows at once. */
  readonly poison: boolean;
  /** The last handler in flight is done. */
  readonly onIdle?: () => void;
}

/** A datagram whose handler has returned a promise. */
interface Flight {
  readonly from: Source;
  readonly due: number;
  readonly ticket: number;
  over: boolean;
}

type Sendable = string | Uint8Array;

const REQUESTS = LISTENER_FIELDS.indexOf("requests");
const IN_FLIGHT = LISTENER_FIELDS.indexOf("inFlight");
const SHED = LISTENER_FIELDS.indexOf("shed");
const SAY_EVERY_MS = 1_000;

const cellOf = (field: DatagramField): number => LISTENER_DATAGRAMS + DATAGRAM_FIELDS.indexOf(field);
const FAILED = cellOf("failed");
const DROPPED = cellOf("dropped");
const OVERSIZED = cellOf("oversized");
const UNVERIFIED = cellOf("unverified");
const ERRORS = cellOf("errors");

export class DatagramEndpoint implements Receiver, SourceOwner {
  readonly service: AnyUdpService;
  readonly pools: readonly TaskPool[];
  readonly gate: Gate;
  readonly log: Logger;
  limits!: Limits;
  /** Handlers whose promise is not settled. */
  inFlight = 0;
  readonly #options: DatagramOptions;
  readonly #transport: DatagramTransport;
  readonly #row: Float64Array;
  readonly #index: number;
  #mark!: number;
  #factor!: number;
  #requestMs!: number;
  /** Those that fall due some time: as many as are in flight, at most. */
  readonly #flights = new Set<Flight>();
  /** None of them falls due before. */
  #nextDue = Number.POSITIVE_INFINITY;
  #borrowed: BorrowedMessage | undefined;
  /** A datagram has waited for its reply: all are timed one by one from then on. */
  #waits = false;
  #from: Source;
  /** The handler of `#from` is running. */
  #running = false;
  readonly #saidAt = new Map<string, number>();

  constructor(options: DatagramOptions) {
    this.#options = options;
    this.service = options.service;
    this.pools = options.service.pools as unknown as readonly TaskPool[];
    this.gate = options.gate;
    this.log = options.log;
    this.#transport = options.transport;
    this.#row = options.row;
    this.#index = options.index;
    this.configure(options);
    this.#from = new Source(this, options.transport.inputWords);
  }

  /** Takes over what may change while it serves. */
  configure({ limits, timeouts }: Pick<DatagramOptions, "limits" | "timeouts">): void {
    const { transport, service } = this.#options;
    if (service.as === "borrowed" && limits.datagram !== this.limits?.datagram && !this.#keeps) {
      this.#borrowed = new BorrowedMessage(transport.input, transport.inputWords, limits.datagram);
    }
    this.limits = limits;
    this.#factor = limits.amplification === "off" ? 0 : limits.amplification;
    this.#requestMs = msOf(timeouts.request);
    this.#mark = inFlightMarkOf(service, limits);
  }

  /** Its handlers return promises, so each message is a copy of its own. */
  get #keeps(): boolean {
    return this.limits !== undefined && this.#borrowed === undefined;
  }

  // ---- what the engine says ----

  onDatagram(at: number, length: number): void {
    const { gate } = this;
    this.#row[REQUESTS] = (this.#row[REQUESTS] as number) + 1;
    const message = this.#borrowed?.take(at, length) ?? ownMessage(this.#transport.input, at, length);
    const from = this.#from;
    from.point((at - END_BYTES) >> 2, length * this.#factor);
    this.#running = true;
    const { timing } = this.#options;
    const exact = this.#waits;
    timing.begin(exact);
    let waits = false;
    try {
      const overBound = gate.alerts !== 0 || gate.inFlight >= this.#mark;
      if (overBound && refusalOf(this, message)) this.#shed(message, from);
      else waits = this.#handle(message, from);
    } catch (error) {
      this.#failed(error, from);
    }
    this.#running = false;
    if (waits) timing.leave();
    else timing.finish(this.#row, exact);
    if (this.#options.poison && from === this.#from) this.#spoil();
  }

  /** Every tick: ends what is over `timeouts.request`. */
  tick(now: number): void {
    if (now < this.#nextDue) return;
    this.#nextDue = Number.POSITIVE_INFINITY;
    // All of them: what began after a reload may fall due before what began before it.
    for (const flight of this.#flights) {
      if (flight.due <= now) this.#land(flight, () => this.#failed(new DeadlineExceeded(LATE), flight.from));
      else this.#nextDue = Math.min(this.#nextDue, flight.due);
    }
  }

  // ---- what its service says ----

  sendTo(message: Sendable, to: Source): SendResult {
    to.check();
    const size = sizeOf(message);
    const transport = this.#transport;
    if (!transport.sends(this.#index)) return this.#refuse(FAILED, "closed");
    if (size > this.limits.datagram) {
      this.#sayOnce("oversized", `a datagram of ${size} bytes is longer than limits.datagram: refused`);
      return this.#refuse(OVERSIZED);
    }
    if (transport.waiting >= DATAGRAMS_WAITING) return this.#refuse(DROPPED);
    if (this.#factor !== 0 && !this.#spend(to, size)) {
      this.#sayOnce("unverified", UNVERIFIED_ADVICE);
      return this.#refuse(UNVERIFIED);
    }
    this.#write(message, size, to);
    return transport.waiting > 0 ? "slow" : "ok";
  }

  isVerified(source: Source): boolean {
    return this.#factor === 0 || this.#creditOf(source, false) === SOURCE_VERIFIED;
  }

  verify(source: Source): void {
    if (this.#creditOf(source, true) === undefined) return;
    const { sources } = this.#transport;
    const cell = (source.words[source.at + END.source] as number) * SOURCE.words;
    sources[cell + SOURCE.credit] = SOURCE_VERIFIED;
    // It may have been silent for long: it has shown by other means that it is there.
    sources[cell + SOURCE.heard] = this.#options.now() | 0;
  }

  isOver(source: Source): boolean {
    return source === this.#from && !this.#running;
  }

  // ---- sending ----

  #write(message: Sendable, size: number, to: Source): void {
    const transport = this.#transport;
    const at = transport.reserve(size);
    const { output, outputWords } = transport;
    const [words, from, first] = [to.words, to.at, at >> 2];
    for (let word = 0; word < END.words; word++) outputWords[first + word] = words[from + word] as number;
    const body = at + END_BYTES;
    if (this.#borrowed?.is(message)) this.#borrowed.copyTo(outputWords, body >> 2, size);
    else if (typeof message === "string") output.write(message, body);
    else copyBytes(message, 0, size, output, body);
    transport.submit(this.#index, at, size);
  }

  #refuse(cell: number, result: SendResult = "refused"): SendResult {
    this.#row[cell] = (this.#row[cell] as number) + 1;
    return result;
  }

  /** What may still go to it; undefined when nothing is known of it. `take`: then that is changed. */
  #creditOf(source: Source, take: boolean): number | undefined {
    const { sources } = this.#transport;
    const { words, at } = source;
    let entry = words[at + END.source] as number;
    const known = entry >= 0 && sources[entry * SOURCE.words + SOURCE.generation] === words[at + END.generation];
    if (!known) {
      entry = this.#transport.source(words.slice(at, at + END.words), take);
      if (entry === SOURCE_NONE) return undefined;
      words[at + END.source] = entry;
      words[at + END.generation] = sources[entry * SOURCE.words + SOURCE.generation] as number;
    }
    return this.#creditIn(entry * SOURCE.words);
  }

  /** The engine looks at a source's silence when it sends again: whoever never does is found here. */
  #creditIn(cell: number): number {
    const { sources } = this.#transport;
    const credit = sources[cell + SOURCE.credit] as number;
    if (credit !== SOURCE_VERIFIED) return credit;
    const silentMs = ((this.#options.now() | 0) - (sources[cell + SOURCE.heard] as number)) >>> 0;
    if (silentMs <= SOURCE_SILENT_MS) return SOURCE_VERIFIED;
    sources[cell + SOURCE.credit] = 0;
    return 0;
  }

  /** False when it may not get so many bytes. */
  #spend(to: Source, size: number): boolean {
    const { sources } = this.#transport;
    const entry = to.words[to.at + END.source] as number;
    const cell = entry * SOURCE.words;
    if (entry < 0 || sources[cell + SOURCE.generation] !== to.words[to.at + END.generation]) {
      return this.#spendUnknown(to, size);
    }
    const credit = this.#creditIn(cell);
    if (credit === SOURCE_VERIFIED) return true;
    if (credit < size) return false;
    sources[cell + SOURCE.credit] = credit - size;
    return true;
  }

  /**
   * Its entry has been given to another. Of the datagram that is being handled, whose bytes were lost with it, it may
   * still get what that has earned: nobody has spent any of that, for the entry went before any handler ran.
   */
  #spendUnknown(to: Source, size: number): boolean {
    if (to === this.#from && to.left >= size) {
      to.left -= size;
      return true;
    }
    return this.#creditOf(to, false) !== undefined && this.#spend(to, size);
  }

  // ---- handlers, which may take their time, fail, or not be called ----

  /** True when its handler has returned a promise. */
  #handle(message: Buffer, from: Source): boolean {
    const reply = this.service.onDatagram(message, from, this.#options.env);
    if (reply === undefined) return false;
    if (isThenable(reply)) {
      this.#later(reply, from);
      return true;
    }
    this.sendTo(reply as Sendable, from);
    return false;
  }

  #later(reply: PromiseLike<unknown>, from: Source): void {
    const { transport, now, timing } = this.#options;
    this.#waits = true;
    this.#borrowed = undefined;
    from.detach();
    this.#from = new Source(this, transport.inputWords);
    const flight: Flight = {
      from,
      due: now() + this.#requestMs,
      ticket: timing.inFlight.take(timing.laps.begun, NO_TICKET),
      over: false,
    };
    if (flight.due !== Number.POSITIVE_INFINITY) {
      this.#flights.add(flight);
      if (flight.due < this.#nextDue) this.#nextDue = flight.due;
    }
    this.#count(1);
    reply.then(
      (value) =>
        this.#land(flight, () => {
          if (value !== undefined) this.sendTo(value as Sendable, from);
        }),
      (error) => this.#land(flight, () => this.#failed(error, from)),
    );
  }

  /** Once: when it is answered, or its time is up. */
  #land(flight: Flight, end: () => void): void {
    if (flight.over) return;
    flight.over = true;
    this.#flights.delete(flight);
    try {
      end();
    } catch (error) {
      this.#failed(error, flight.from);
    }
    const { inFlight, laps } = this.#options.timing;
    observe(this.#row, laps.now() - inFlight.began(flight.ticket));
    inFlight.give(flight.ticket, NO_TICKET);
    this.#count(-1);
    if (this.inFlight === 0) this.#options.onIdle?.();
  }

  #count(by: 1 | -1): void {
    this.inFlight += by;
    this.gate.inFlight += by;
    this.#row[IN_FLIGHT] = (this.#row[IN_FLIGHT] as number) + by;
  }

  #failed(error: unknown, from: Source): void {
    this.#row[ERRORS] = (this.#row[ERRORS] as number) + 1;
    const { onError } = this.service;
    if (!onError) {
      this.#sayOnce("errors", "onDatagram failed", error);
      return;
    }
    try {
      const reply = this.service.onError?.(error, from, this.#options.env);
      if (reply !== undefined) this.sendTo(reply, from);
    } catch (err) {
      this.#sayOnce("errors", "onError failed", err);
    }
  }

  #shed(message: Buffer, from: Source): void {
    this.#row[SHED] = (this.#row[SHED] as number) + 1;
    try {
      const reply = this.service.busy?.(message);
      if (reply !== undefined) this.sendTo(reply, from);
    } catch (error) {
      this.#failed(error, from);
    }
  }

  /** In development nothing that a handler has kept is left to it. */
  #spoil(): void {
    this.#borrowed?.poison();
    this.#from.expire();
    this.#from = new Source(this, this.#transport.inputWords);
  }

  /** Anybody can cause it, as often as he likes. */
  #sayOnce(what: string, text: string, err?: unknown): void {
    const now = this.#options.now();
    if (now - (this.#saidAt.get(what) ?? Number.NEGATIVE_INFINITY) < SAY_EVERY_MS) return;
    this.#saidAt.set(what, now);
    this.log.warn(err === undefined ? {} : { err }, text);
  }
}

const LATE = "the handler took longer than timeouts.request";
const UNVERIFIED_ADVICE =
  "a source that is not verified would have got more than limits.amplification allows: refused (see from.verify())";

/** Throws `frame-invalid` for what is neither text nor bytes. */
function sizeOf(message: Sendable): number {
  if (message instanceof Uint8Array) return message.length;
  if (typeof message === "string") return Buffer.byteLength(message);
  const given = message === null ? "null" : typeof message;
  throw new HeadraceError("frame-invalid", `a datagram that is of type ${given} cannot be sent`, {
    given,
    allowed: "text or bytes (string, Buffer, Uint8Array)",
  });
}
