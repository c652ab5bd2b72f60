/**
 * One served connection: bytes → frames → handler → reply. It owns its engine slot from accept until `#end`,
 * which is the only way out and happens once. Between the two it is in one of three phases; whether it takes
 * input is `#blocked`, which has four causes (handlers in flight, output backed up, the user's pause, an
 * unread end) and one effect: bytes are held, and reading stops at the next arrival.
 */

import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { type CloseReason, reasonIndex } from "../base/reasons.ts";
import { INVALID, NEED_MORE } from "../codec/codec.ts";
import { isPeerReset, type SlotOwner } from "../engine/engine.ts";
import { TICK_MS } from "../engine/layout.ts";
import { LISTENER_CLOSED, LISTENER_FIELDS } from "../os/scoreboard.ts";
import type { Connection, SendResult } from "../service/connection.ts";
import type { Reply } from "../service/define.ts";
import { type Due, nextDue } from "./due.ts";
import type { Endpoint } from "./endpoint.ts";
import { Held } from "./held.ts";
import { OrderedReplies, type Place } from "./ordered.ts";
import { Request } from "./request.ts";

const ACTIVE = LISTENER_FIELDS.indexOf("active");
const OPENED = LISTENER_FIELDS.indexOf("opened");
const REQUESTS = LISTENER_FIELDS.indexOf("requests");
const IN_FLIGHT = LISTENER_FIELDS.indexOf("inFlight");

/** What few connections need, made when first needed. */
interface Extras {
  abort: AbortController | undefined;
  log: Logger | undefined;
  waiters: { resolve(): void; reject(error: Error): void }[];
  order: OrderedReplies | undefined;
  pausedByUser: boolean;
}

const ASYNC_GOODBYE = "onDraining returned a promise; it must return the message itself, or nothing";

/** How a handler ended: with a reply, an error, or a reply that is bytes by now. */
type Outcome = "reply" | "error" | "encoded";

/** What a borrowed frame is overwritten with. */
const POISON = 0xdb;
const NEVER = Number.POSITIVE_INFINITY;
/** How late a busy worker may come to read the rest of a frame, ms. */
const LATE_MS = 1_000;

/** Handlers on the stack: more than one when one of them makes another connection go on. */
let handlersRunning = 0;

export class ServedConnection<State = unknown, Out = unknown> implements Connection<State, Out>, SlotOwner {
  readonly endpoint: Endpoint;
  state: State;
  /** Cursor of the codec. */
  seen = 0;
  mode = 0;

  readonly #slot: number;
  readonly #generation: number;
  readonly #serial: number;
  #phase: "open" | "draining" | "closed" = "open";
  #endedBy: CloseReason = "server-close";
  #hasState = false;
  #held: Held | undefined;
  #inFlight = 0;
  /** Clock (ms) since which the peer owes the rest of a frame; 0: it owes none. */
  #frameSince = 0;
  /** Clock (whole ms) until which it was this side that kept the connection from going on. */
  #busyUntil = 0;
  #blocked = false;
  #backedUp = false;
  #reading = true;
  #inputEnded = false;
  #consuming = false;
  #extras: Extras | undefined;

  constructor(endpoint: Endpoint, slot: number, generation: number) {
    this.endpoint = endpoint;
    this.#slot = slot;
    this.#generation = generation;
    this.#serial = ++endpoint.opened;
    this.state = undefined as State;
  }

  // ---- what the user sees ----

  get id(): string {
    return `${this.endpoint.idPrefix}-${this.#serial.toString(36)}`;
  }

  get remote(): { host: string; port: number } {
    return this.endpoint.transport.peer(this.#slot, this.#generation);
  }

  get listener(): string {
    return this.endpoint.listener;
  }

  get log(): Logger {
    const extras = this.#extra();
    extras.log ??= this.endpoint.log.child({ connection: this.id });
    return extras.log;
  }

  get signal(): AbortSignal {
    const extras = this.#extra();
    extras.abort ??= new AbortController();
    if (this.closed) extras.abort.abort(closedError(this.#endedBy));
    return extras.abort.signal;
  }

  get closed(): boolean {
    return this.#phase === "closed";
  }

  get bufferedBytes(): number {
    return this.closed ? 0 : (this.endpoint.transport.unsent[this.#slot] as number);
  }

  send(message: Out): SendResult {
    return this.#phase === "closed" ? "closed" : this.#write(message);
  }

  drained(): Promise<void> {
    if (this.closed) return Promise.reject(closedError(this.#endedBy));
    if (!this.#backedUp) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#extra().waiters.push({ resolve, reject });
    });
  }

  pauseReads(): void {
    this.#extra().pausedByUser = true;
    this.#block();
    if (!this.closed) this.#settle();
  }

  resumeReads(): void {
    if (this.#extras) this.#extras.pausedByUser = false;
    // Inside another connection's handler the codec still holds that one's message: go on when it has returned.
    if (handlersRunning > 0 && !this.#consuming) queueMicrotask(() => this.#unblock());
    else this.#unblock();
  }

  close(reason: CloseReason = "server-close"): void {
    this.#end(reason, "close");
  }

  reset(reason: CloseReason = "server-close"): void {
    this.#end(reason, "reset");
  }

  /** The worker stops: says goodbye where the service can, and ends once nothing is in flight. */
  drain(): void {
    if (this.#phase !== "open") return;
    this.#phase = "draining";
    const { service, env } = this.endpoint;
    try {
      const goodbye = service.onDraining?.(this, env) as Out | PromiseLike<Out> | undefined;
      if (isThenable(goodbye)) throw new HeadraceError("service-invalid", ASYNC_GOODBYE);
      if (goodbye !== undefined) this.send(goodbye);
    } catch (error) {
      this.#handlerFailed(error);
    }
    if (!this.closed) this.#settle();
  }

  // ---- what the engine says ----

  onOpen(): void {
    const { endpoint } = this;
    count(endpoint.row, ACTIVE, 1);
    count(endpoint.row, OPENED, 1);
    endpoint.wheel.start(this.#slot, this.#nextDue(endpoint.transport.now).at);
    try {
      this.state = endpoint.service.state?.(this, endpoint.env);
      this.#hasState = true;
      this.#guard(endpoint.service.onOpen?.(this, endpoint.env));
    } catch (error) {
      this.#handlerFailed(error);
    }
  }

  onData(input: Buffer, from: number, to: number): void {
    const held = this.#held;
    if (held) {
      held.append(input, from, to);
      this.#advance();
      return;
    }
    const used = this.#consume(input, from, to);
    if (used < to && this.#phase !== "closed") this.#hold(input, used, to);
    else if (this.seen !== 0 || this.#frameSince !== 0) this.#noneHeld();
    if (this.#blocked || this.#phase !== "open") this.#settle();
  }

  onEnd(): void {
    this.#inputEnded = true;
    this.#settle();
  }

  onError(errno: number): void {
    this.#end(isPeerReset(errno) ? "peer-reset" : "io-error", "close");
  }

  onWritable(): void {
    if (this.closed) return;
    this.#backedUp = false;
    const waiters = this.#extras?.waiters.splice(0) ?? [];
    for (const waiter of waiters) waiter.resolve();
    try {
      this.#guard(this.endpoint.service.onWritable?.(this, this.endpoint.env));
    } catch (error) {
      this.#handlerFailed(error);
    }
    this.#unblock();
  }

  onBlocked(): void {
    const { transport, wheel, writeStallMs } = this.endpoint;
    if (!this.closed) wheel.schedule(this.#slot, transport.now + writeStallMs);
  }

  /** The wheel has come round: ends the connection if something is due, else says when to look again (ms). */
  onDue(now: number): number {
    if (this.closed) return NEVER;
    const { transport } = this.endpoint;
    // Bytes of this very turn were not offered to the kernel yet: they do not stall.
    if (transport.unsent[this.#slot] !== 0) transport.flush();
    const { at, reason } = this.#nextDue(now);
    if (at > now) return at;
    // The peer's bytes are there and this worker has not come to read them: the delay is ours. Of a frame nobody
    // knows whether it is all there, so that one is waited for no longer than LATE_MS.
    const certain = reason === "write-stall" || !this.#reading || (reason === "frame-timeout" && now >= at + LATE_MS);
    if (!certain && transport.unread(this.#slot, this.#generation) > 0) return now + TICK_MS;
    this.#end(reason, reason === "write-stall" ? "reset" : "close");
    return NEVER;
  }

  #nextDue(now: number): Due {
    return nextDue(this.endpoint, this.#slot, now, {
      busy: this.#inFlight > 0 || this.#blocked,
      busyUntil: this.#busyUntil,
      frameSince: this.#frameSince,
    });
  }

  // ---- bytes to requests ----

  /** Cuts and handles messages; returns how far it came. Stops at an unfinished frame, or when blocked. */
  #consume(bytes: Buffer, from: number, to: number): number {
    const { codec } = this.endpoint.service;
    const maxFrameBytes = this.endpoint.limits.frame;
    this.#consuming = true;
    try {
      while (from < to && !this.#blocked) {
        const used = codec.decode(bytes, from, to, this, maxFrameBytes);
        if (used > 0) {
          if (used > to - from) throw brokenCodec(codec.name, "decode", used, to - from);
          from += used;
          this.#request(codec.message);
        } else if (used === NEED_MORE) {
          break;
        } else if (used === INVALID) {
          this.#end(codec.fault, "close");
        } else {
          from += -1 - used;
        }
        if (this.#phase === "closed") from = to;
      }
    } catch (error) {
      this.#handlerFailed(error);
      from = to;
    }
    this.#consuming = false;
    return from;
  }

  #hold(bytes: Buffer, from: number, to: number): void {
    this.#held = new Held(bytes, from, to);
    this.#frameBegun();
  }

  /** Whatever is held and not blocked is an unfinished frame, and its clock runs. */
  #frameBegun(): void {
    if (this.#blocked) {
      this.#frameSince = 0;
      return;
    }
    const { transport, wheel, frameMs } = this.endpoint;
    this.#frameSince = transport.now;
    wheel.schedule(this.#slot, this.#frameSince + frameMs);
  }

  /** Nothing is held, but the codec may be in the midst of something (dropping an oversized line). */
  #noneHeld(): void {
    if (this.seen === 0) this.#frameSince = 0;
    else if (this.#frameSince === 0) this.#frameBegun();
  }

  /** Goes on with what is held. */
  #advance(): void {
    if (this.#consuming || this.#phase === "closed") return;
    const held = this.#held;
    if (held) {
      const used = this.#consume(held.bytes, held.from, held.to);
      if (this.closed) return;
      if (used === held.to) {
        this.#held = undefined;
        this.#noneHeld();
      } else if (used > held.from || this.#frameSince === 0) {
        held.from = used;
        this.#frameBegun();
      }
    }
    this.#settle();
  }

  /** Brings reading and the end of the connection into line with its state. */
  #settle(): void {
    if (this.#phase === "closed" || this.#consuming) return;
    const { transport } = this.endpoint;
    if (this.#blocked && this.#reading && this.#held) {
      this.#reading = false;
      transport.pause(this.#slot, this.#generation);
    } else if (!this.#blocked && !this.#reading) {
      this.#reading = true;
      transport.resume(this.#slot, this.#generation);
    }
    if (this.#inFlight > 0 || this.#blocked) return;
    if (this.#inputEnded) this.#end("peer-closed", "close");
    else if (this.#phase === "draining" && !this.#held) this.#end("drain", "close");
  }

  /** Takes no input: the peer cannot be late with what it may not send. */
  #block(): void {
    this.#blocked = true;
    this.#frameSince = 0;
  }

  #unblock(): void {
    if (this.closed) return;
    if (this.#blocked) this.#busyUntil = Math.floor(this.endpoint.transport.now);
    this.#blocked =
      this.#inFlight >= this.endpoint.maxInFlight || this.#backedUp || this.#extras?.pausedByUser === true;
    if (!this.#blocked) this.#advance();
  }

  // ---- requests to replies ----

  #request(message: unknown): void {
    const { endpoint } = this;
    const context = new Request<State, Out, unknown>(this, ++endpoint.requests);
    count(endpoint.row, REQUESTS, 1);
    handlersRunning += 1;
    try {
      const reply = endpoint.handle(message, context) as Reply<Out>;
      if (isThenable(reply)) this.#wait(reply, context);
      else if (this.#extras?.order?.empty === false) this.#queue(reply as Out | undefined, context);
      else if (reply !== undefined) this.#answer(reply as Out);
    } catch (error) {
      if (this.#extras?.order?.empty === false) this.#place("error", error, context);
      else this.#requestFailed(error, context);
    }
    handlersRunning -= 1;
    if (endpoint.poison && message instanceof Uint8Array) message.fill(POISON);
  }

  #begin(): void {
    this.#inFlight += 1;
    count(this.endpoint.row, IN_FLIGHT, 1);
    if (this.#inFlight >= this.endpoint.maxInFlight) this.#block();
  }

  #wait(reply: PromiseLike<unknown>, context: Request<State, Out, unknown>): void {
    const place = this.endpoint.ordered ? this.#order().add() : undefined;
    this.#begin();
    // Promise.resolve: a native promise stays itself; anything else may throw or settle twice.
    Promise.resolve(reply).then(
      (value) => this.#finished(place, "reply", value, context),
      (error: unknown) => this.#finished(place, "error", error, context),
    );
  }

  /** A plain reply behind unfinished ones: encoded now, because a borrowed message is gone when its turn comes. */
  #queue(reply: Out | undefined, context: Request<State, Out, unknown>): void {
    this.#place("encoded", reply === undefined || this.closed ? undefined : this.#encode(reply), context);
  }

  /** A place behind unfinished replies for an outcome that is there already. */
  #place(outcome: Outcome, value: unknown, context: Request<State, Out, unknown>): void {
    if (this.closed) return;
    const place = this.#order().add();
    place.conclude = () => this.#conclude(outcome, value, context);
    this.#begin();
  }

  #finished(place: Place | undefined, outcome: Outcome, value: unknown, context: Request<State, Out, unknown>): void {
    if (this.closed) return;
    const conclude = (): void => this.#conclude(outcome, value, context);
    if (place) {
      // A finished handler keeps its place in flight until its reply can leave: else one slow request at the
      // front would let the replies behind it pile up without bound.
      place.conclude = conclude;
      const order = this.#order();
      for (let next = order.next(); next && !this.closed; next = order.next()) next();
    } else {
      conclude();
    }
    if (!this.closed) this.#unblock();
  }

  #conclude(outcome: Outcome, value: unknown, context: Request<State, Out, unknown>): void {
    this.#inFlight -= 1;
    this.#busyUntil = Math.floor(this.endpoint.transport.now);
    count(this.endpoint.row, IN_FLIGHT, -1);
    try {
      if (outcome === "error") throw value;
      if (value === undefined) return;
      if (outcome === "reply") this.#answer(value as Out);
      else if (this.#writeBytes(value as Buffer) === "refused") this.#end("slow-consumer", "reset");
    } catch (error) {
      this.#requestFailed(error, context);
    }
  }

  #answer(reply: Out): void {
    if (this.#phase === "closed") return;
    if (this.#write(reply) === "refused") this.#end("slow-consumer", "reset");
  }

  #requestFailed(error: unknown, context: Request<State, Out, unknown>): void {
    if (this.closed) return;
    const { service } = this.endpoint;
    if (!service.onError) {
      this.#handlerFailed(error);
      return;
    }
    try {
      const answer = service.onError(error, context);
      if (answer === "reset" || answer === "close") this.#end("handler-error", answer);
      else if (answer) this.#answer(answer.reply as Out);
    } catch (second) {
      this.#handlerFailed(second);
    }
  }

  /** An async handler where none is awaited: its rejection is a failure like a throw. */
  #guard(result: unknown): void {
    if (isThenable(result)) Promise.resolve(result).catch((error: unknown) => this.#handlerFailed(error));
  }

  #handlerFailed(error: unknown): void {
    this.log.error({ err: error }, "a handler failed; the connection is closed");
    this.#end("handler-error", "close");
  }

  // ---- output ----

  #write(message: Out): SendResult {
    const { transport, limits, service, coalesce } = this.endpoint;
    const { codec } = service;
    const slot = this.#slot;
    const size = codec.sizeOf(message);
    // What is unsent counts only after a flush; before one, most of it may just not have left yet.
    if (!this.#backedUp && (transport.unsent[slot] as number) + size > limits.highWater) transport.flush();
    const at = transport.reserve(size);
    if (at < 0) return this.#writeBytes(this.#encode(message));
    const written = codec.encodeInto(message, transport.output, at, limits.frame);
    if (written > size) throw brokenCodec(codec.name, "encodeInto", written, size);
    const unsent = (transport.unsent[slot] as number) + written;
    if (unsent > limits.buffered) return "refused";
    transport.submit(slot, this.#generation, at, written, coalesce);
    return unsent > limits.highWater ? this.#slow() : "ok";
  }

  #encode(message: Out): Buffer {
    const { codec } = this.endpoint.service;
    const bytes = Buffer.allocUnsafe(codec.sizeOf(message));
    const written = codec.encodeInto(message, bytes, 0, this.endpoint.limits.frame);
    if (written > bytes.length) throw brokenCodec(codec.name, "encodeInto", written, bytes.length);
    return bytes.subarray(0, written);
  }

  /** Sends bytes that are encoded already: a message too large for the arena, or one that had to wait its turn. */
  #writeBytes(bytes: Buffer): SendResult {
    const { transport, limits } = this.endpoint;
    if ((transport.unsent[this.#slot] as number) + bytes.length > limits.buffered) return "refused";
    transport.sendLarge(this.#slot, this.#generation, bytes);
    return (transport.unsent[this.#slot] as number) > limits.highWater ? this.#slow() : "ok";
  }

  /** Over the high-water mark, unless the kernel takes it all now. */
  #slow(): SendResult {
    const { transport, limits } = this.endpoint;
    if (this.#backedUp) return "slow";
    transport.flush();
    if ((transport.unsent[this.#slot] as number) <= limits.highWater) return "ok";
    this.#backedUp = true;
    this.#block();
    transport.notifyBelow(this.#slot, this.#generation, limits.lowWater);
    this.#settle();
    return "slow";
  }

  // ---- the end ----

  #end(reason: CloseReason, how: "close" | "reset"): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#endedBy = reason;
    this.#held = undefined;
    const { endpoint } = this;
    if (endpoint.log.isLevelEnabled("debug")) this.log.debug({ reason, remote: this.remote }, "connection closed");
    if (how === "reset") endpoint.transport.reset(this.#slot, this.#generation);
    else endpoint.transport.close(this.#slot, this.#generation, endpoint.flushMs);
    count(endpoint.row, ACTIVE, -1);
    count(endpoint.row, IN_FLIGHT, -this.#inFlight);
    count(endpoint.row, LISTENER_CLOSED + reasonIndex(reason), 1);
    this.#extras?.abort?.abort(closedError(reason));
    for (const waiter of this.#extras?.waiters.splice(0) ?? []) waiter.reject(closedError(reason));
    try {
      if (this.#hasState) this.#guard(endpoint.service.onClose?.(this, reason, endpoint.env));
    } catch (error) {
      this.log.error({ err: error }, "onClose failed");
    }
  }

  #extra(): Extras {
    this.#extras ??= { abort: undefined, log: undefined, waiters: [], order: undefined, pausedByUser: false };
    return this.#extras;
  }

  #order(): OrderedReplies {
    const extras = this.#extra();
    extras.order ??= new OrderedReplies();
    return extras.order;
  }
}

function count(row: Float64Array, index: number, by: number): void {
  row[index] = (row[index] as number) + by;
}

function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === "object" && value !== null && typeof (value as PromiseLike<T>).then === "function";
}

function brokenCodec(name: string, call: string, given: number, allowed: number): HeadraceError {
  return new HeadraceError("codec-broken", `codec ${name}: ${call} returned ${given} of ${allowed} bytes`, {
    given: String(given),
    allowed: `at most ${allowed}`,
  });
}

function closedError(reason: CloseReason): HeadraceError {
  return new HeadraceError("connection-closed", `the connection is closed (${reason})`, { given: reason });
}
