/**
 * One served connection: bytes → frames → handler → reply. It owns its engine slot from accept until `#end`,
 * which happens once, or until another worker has it (`suspend`, `gone`; there: `arrive`, `begin`). Between the two
 * it is in one of the phases below; whether it takes input is `#blocked`, which has five causes (handlers in flight,
 * output backed up, the user's pause, a move, the worker's buffers) and one effect: bytes are held, and reading stops at the next arrival.
 */

import { DeadlineExceeded, HeadraceError, RequestCancelled, ServerBusy } from "../base/errors.ts";
import { DEBUG_LEVEL, type Logger } from "../base/log.ts";
import { type CloseReason, isPeerFault, reasonIndex } from "../base/reasons.ts";
import { isThenable } from "../base/thenable.ts";
import { INVALID, NEED_MORE } from "../codec/codec.ts";
import { Held } from "../codec/held.ts";
import type { ProxyInfo } from "../codec/proxy-header.ts";
import { isPeerReset, isTlsFault, type ReleasedSlot, type SlotOwner } from "../engine/engine.ts";
import { COUNTER, ENTRY, TICK_MS } from "../engine/layout.ts";
import { LISTENER_CLOSED, LISTENER_FIELDS } from "../os/scoreboard.ts";
import { BEGIN_CALL, type Callable, type DownstreamOptions } from "../service/call.ts";
import type { Connection, ConnectionTimeouts, ConnectionTls, SendResult } from "../service/connection.ts";
import type { Reply } from "../service/define.ts";
import type { TaskPool } from "../tasks/pool.ts";
import { Beat, NO_BEAT } from "./beat.ts";
import type { BufferHolder } from "./buffer-memory.ts";
import { type Deadlines, NONE_OWN, OwnDeadlines } from "./deadlines.ts";
import { agesAt, type Due, drawOpenedAt, nextDue } from "./due.ts";
import type { Endpoint } from "./endpoint.ts";
import { type Canceller, Flight } from "./flight.ts";
import { NO_TICKET } from "./in-flight.ts";
import type { Arriving, Leaving } from "./move.ts";
import { MOVED_BYTES_MAX, type MovedConnection, type PackedState, packState, unpackState } from "./moved.ts";
import { OrderedReplies, type Place } from "./ordered.ts";
import type { Origin } from "./origin.ts";
import { Request } from "./request.ts";
import { Subscriptions } from "./subscriptions.ts";
import { observe } from "./timing.ts";
import type { Subscriber } from "./topics.ts";

const ACTIVE = LISTENER_FIELDS.indexOf("active");
const OPENED = LISTENER_FIELDS.indexOf("opened");
const REQUESTS = LISTENER_FIELDS.indexOf("requests");
const IN_FLIGHT = LISTENER_FIELDS.indexOf("inFlight");
const SHED = LISTENER_FIELDS.indexOf("shed");
const LATE = LISTENER_FIELDS.indexOf("late");
const CANCELLED = LISTENER_FIELDS.indexOf("cancelled");
const MOVED_IN = LISTENER_FIELDS.indexOf("movedIn");
const MOVED_OUT = LISTENER_FIELDS.indexOf("movedOut");

/** What few connections need, made when first needed. */
interface Extras {
  abort: AbortController | undefined;
  log: Logger | undefined;
  waiters: { resolve(): void; reject(error: Error): void }[];
  order: OrderedReplies | undefined;
  /** Requests with a deadline, tasks or a signal of their own. */
  flights: Set<Request<never, never, unknown>> | undefined;
  /** Requests that wait, by their ids, of services that have such. */
  byId: Map<unknown, Request<never, never, unknown>> | undefined;
  /** Handlers that run on although their requests are over. */
  stragglers: number;
  /** Clock (ms) until which it waits for the peer to close it, when it has said goodbye. */
  lingersUntil: number;
  pausedByUser: boolean;
  topics: Subscriptions | undefined;
  /** Clock (ms) at which it ends whatever is in flight, once it has reached its age. */
  endsAt: number;
  /** As it was before a move, where the kernel no longer says it. */
  remote: { readonly host: string; readonly port: number } | undefined;
  /** What its preface has found out. */
  origin: Origin | undefined;
}

/**
 * `away`: its descriptor is on the way to another worker. `arriving`: it came from one, which does not know yet that it
 * did; nothing may be read or written.
 */
type Phase = "open" | "draining" | "away" | "arriving" | "closed";

type Ending = CloseReason | "moved";

/** `openedAt`: clock, ms. */
export interface Look {
  readonly slot: number;
  readonly generation: number;
  readonly state: "open" | "draining" | "moving";
  readonly openedAt: number;
  /** Handlers that run, and requests that wait. */
  readonly inFlight: number;
}

const LATECOMER = "the deadline of the request had passed before it could be begun";
const STRAY = "too many handlers of this connection run on although their requests are over";
const ASYNC_GOODBYE = "onDraining returned a promise; it must return the message itself, or nothing";

/** How a handler ended: with a reply, an error, or a reply that is bytes by now. */
type Outcome = "reply" | "error" | "encoded";

/** What a borrowed frame is overwritten with. */
const POISON = 0xdb;
const NO_TOPICS: readonly string[] = [];
const NO_FAREWELL = { lingersUntil: 0 };
const NONE_WAIT: readonly Buffer[] = [];
const NEVER = Number.POSITIVE_INFINITY;
/** A peer that takes nothing, or is not there, is not waited for. */
const HOW: Partial<Record<CloseReason, "reset">> = {
  "write-stall": "reset",
  "heartbeat-missed": "reset",
  "max-age": "reset",
};
/** How late a busy worker may come to read the rest of a frame, ms. */
const LATE_MS = 1_000;
/** So long before a request's deadline the wheel hands it over to the alarm, ms. */
const LEAD_MS = 2 * TICK_MS;

/** Handlers on the stack: more than one when one of them makes another connection go on. */
let handlersRunning = 0;

export class ServedConnection<State = unknown, Out = unknown>
  implements Connection<State, Out>, SlotOwner, BufferHolder, Subscriber
{
  readonly endpoint: Endpoint;
  state: State;
  /** Cursor of the codec. */
  seen = 0;
  mode = 0;

  #slot: number;
  #generation: number;
  /** Of this endpoint; or the whole id, of a connection that came from another worker. */
  readonly #serial: number | string;
  #phase: Phase = "open";
  /** While it drains: what it will have ended by. */
  #endedBy: Ending = "server-close";
  /** Clock (ms) of its accept, with the lot of its age below the point (due.ts). */
  #openedAt: number;
  /** The listener's, or its own over them. */
  #deadlines: Deadlines;
  #beat: Beat | undefined;
  #hasState = false;
  #held: Held | undefined;
  #inFlight = 0;
  /** The tickets of those in flight; as many. */
  #tickets = NO_TICKET;
  /** Clock (ms) since which the peer owes the rest of a frame; 0: it owes none. */
  #frameSince = 0;
  /** Clock (whole ms) until which it was this side that kept the connection from going on. */
  #busyUntil = 0;
  #blocked = false;
  /** The worker's buffers are full, and it is one of those that hold most. */
  #heldBack = false;
  #backedUp = false;
  #reading = true;
  #inputEnded = false;
  #consuming = false;
  #extras: Extras | undefined;
  #leaving: Leaving | undefined;
  #arriving: Arriving | undefined;

  /** `id`: of a connection that is about to arrive. */
  constructor(endpoint: Endpoint, slot: number, generation: number, id?: string) {
    this.endpoint = endpoint;
    this.#slot = slot;
    this.#generation = generation;
    this.#serial = id ?? ++endpoint.opened;
    const { now } = endpoint.transport;
    this.#openedAt = drawOpenedAt(now);
    this.#deadlines = endpoint;
    this.#beat = endpoint.service.heartbeat && new Beat({ ...NO_BEAT, activeAt: now });
    this.state = undefined as State;
  }

  // ---- what the user sees ----

  get id(): string {
    const serial = this.#serial;
    return typeof serial === "string" ? serial : `${this.endpoint.idPrefix}-${serial.toString(36)}`;
  }

  get remote(): { readonly host: string; readonly port: number } {
    return this.#extras?.remote ?? this.endpoint.transport.peer(this.#slot, this.#generation);
  }

  get peer(): { readonly host: string; readonly port: number } {
    return this.#extras?.origin?.peer ?? this.remote;
  }

  get proxy(): ProxyInfo | undefined {
    return this.#extras?.origin?.proxy;
  }

  get tls(): ConnectionTls | undefined {
    return this.#extras?.origin?.tls;
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
    if (this.#phase === "closed") extras.abort.abort(closedError(this.#endedBy));
    return extras.abort.signal;
  }

  get closed(): boolean {
    return this.#phase === "closed" || this.#phase === "away";
  }

  /** It was told goodbye, and ends when nothing of it is in flight. */
  get draining(): boolean {
    return this.#phase === "draining";
  }

  get bufferedBytes(): number {
    if (this.closed) return 0;
    return this.#arriving?.bytes ?? (this.endpoint.transport.unsent[this.#slot] as number);
  }

  /** What there is to see of it from outside. */
  look(): Look {
    const state = this.#phase === "open" || this.#phase === "draining" ? this.#phase : "moving";
    return {
      slot: this.#slot,
      generation: this.#generation,
      state,
      openedAt: this.#openedAt,
      inFlight: this.#inFlight,
    };
  }

  send(message: Out): SendResult {
    if (this.#phase === "open" || this.#phase === "draining") return this.#write(message);
    return this.#arriving ? this.#writeEarly(this.#arriving, message) : "closed";
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

  subscribe(topic: string): void {
    if (!this.closed) this.#topics().add(topic);
  }

  unsubscribe(topic: string): void {
    this.#extras?.topics?.remove(topic);
  }

  publish(topic: string, message: Out): void {
    this.endpoint.publish(topic, message);
  }

  setTimeouts(timeouts: ConnectionTimeouts): void {
    const deadlines = this.#deadlines instanceof OwnDeadlines ? this.#deadlines : new OwnDeadlines(this.endpoint);
    deadlines.set(timeouts);
    this.#deadlines = deadlines;
    this.#lookAgain();
  }

  close(reason: CloseReason = "server-close"): void {
    if (this.#arriving) this.#arriving.ending ??= { reason, how: "close" };
    else this.#end(reason, "close");
  }

  reset(reason: CloseReason = "server-close"): void {
    if (this.#arriving) this.#arriving.ending ??= { reason, how: "reset" };
    else this.#end(reason, "reset");
  }

  /** The worker stops: says goodbye where the service can, and ends once nothing is in flight. */
  drain(reason: CloseReason = "drain"): void {
    if (this.#phase !== "open") return;
    this.#phase = "draining";
    this.#endedBy = reason;
    const { service, env } = this.endpoint;
    try {
      const goodbye = service.onDraining?.(this, env) as Out | PromiseLike<Out> | undefined;
      if (isThenable(goodbye)) throw new HeadraceError("service-invalid", ASYNC_GOODBYE);
      if (goodbye !== undefined) this.#sayGoodbye(goodbye);
    } catch (error) {
      this.#handlerFailed(error);
    }
    this.stay();
    if (!this.closed) this.#settle();
  }

  /** What the peer had sent before it reads this is still answered, where the service waits for that. */
  #sayGoodbye(goodbye: Out): void {
    const { transport, wheel, service } = this.endpoint;
    this.send(goodbye);
    if (!(service.farewellMs > 0)) return;
    const lingersUntil = transport.now + service.farewellMs;
    this.#extra().lingersUntil = lingersUntil;
    wheel.schedule(this.#slot, lingersUntil);
  }

  // ---- what the worker's budget says (buffer-memory.ts) ----

  /** Bytes that it holds: received and not used, waiting for their turn or for it to read, and unsent. */
  get heldBytes(): number {
    if (this.closed) return 0;
    const waiting = (this.#extras?.order?.bytes ?? 0) + (this.#extras?.topics?.bytes ?? 0);
    return (this.#held?.bytes.length ?? 0) + waiting + this.bufferedBytes;
  }

  holdBack(): void {
    if (this.closed) return;
    this.#heldBack = true;
    this.#block();
    this.#settle();
  }

  goOn(): void {
    this.#heldBack = false;
    this.#unblock();
  }

  // ---- what its topics say (topics.ts) ----

  deliver(message: Buffer): void {
    const topics = this.#extras?.topics;
    if (this.closed || !topics) this.endpoint.topics.drop(1);
    else if (this.#backedUp || topics.bytes > 0) this.#letWait(topics, message);
    else if (this.#arriving) this.#deliverEarly(this.#arriving, message);
    else this.#writeShared(message);
  }

  #letWait(topics: Subscriptions, message: Buffer): void {
    if (!topics.wait(message)) this.reset("slow-consumer");
  }

  #deliverEarly(arriving: Arriving, message: Buffer): void {
    if (arriving.bytes + message.length > this.endpoint.limits.buffered) {
      this.endpoint.topics.drop(1);
      return;
    }
    arriving.early.push(message);
    arriving.bytes += message.length;
  }

  /** What has waited, until it waits again. */
  #sendWaiting(topics: Subscriptions): void {
    while (!this.#backedUp && !this.closed) {
      const message = topics.next();
      if (!message) return;
      this.#writeShared(message);
    }
  }

  /** Sends bytes that others get too, and that are in the arena once for all of them. */
  #writeShared(message: Buffer): void {
    const { transport, limits } = this.endpoint;
    const slot = this.#slot;
    if ((transport.unsent[slot] as number) + message.length > limits.highWater) transport.flush();
    const at = transport.share(message);
    if ((transport.unsent[slot] as number) + message.length > limits.buffered) {
      this.endpoint.topics.drop(1);
      return;
    }
    if (at < 0) {
      this.#writeBytes(message);
      return;
    }
    transport.submitShared(slot, this.#generation, at, message.length);
    if (at === 0) this.endpoint.memory.guard();
    if (!this.closed && (transport.unsent[slot] as number) > limits.highWater) this.#slow();
  }

  // ---- what the engine says ----

  /** Before it opens, of one that had a preface. */
  comesFrom(origin: Origin): void {
    this.#extra().origin = origin;
  }

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
      this.#noLap();
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
    const reason = this.tls && isTlsFault(errno) ? "tls-error" : "io-error";
    this.#end(isPeerReset(errno) ? "peer-reset" : reason, "close");
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
    if (this.#extras?.topics) this.#sendWaiting(this.#extras.topics);
    this.#unblock();
  }

  onBlocked(): void {
    const { transport, wheel } = this.endpoint;
    if (!this.closed) wheel.schedule(this.#slot, transport.now + this.#deadlines.writeStallMs);
  }

  /** The wheel has come round: ends the connection if something is due, else says when to look again (ms). */
  onDue(now: number): number {
    if (this.closed) return NEVER;
    const { transport } = this.endpoint;
    // Bytes of this very turn were not offered to the kernel yet: they do not stall.
    if (transport.unsent[this.#slot] !== 0) transport.flush();
    this.#expire(now);
    if (this.#farewellOver()) {
      this.#block();
      this.#settle();
    }
    if (this.closed) return NEVER;
    const { at, reason } = this.#nextDue(now);
    if (at > now) return at;
    // The peer's bytes are there and this worker has not come to read them: the delay is ours. Of a frame nobody
    // knows whether it is all there, so that one is waited for no longer than LATE_MS.
    const certain = reason === "write-stall" || reason === "max-age" || !this.#reading;
    const late = reason === "frame-timeout" && now >= at + LATE_MS;
    if (!certain && !late && transport.unread(this.#slot, this.#generation) > 0) return now + TICK_MS;
    if (reason === "max-age" && this.#phase === "open") this.#age(now);
    else if (reason !== "heartbeat-missed" || !this.#ping(now)) this.#end(reason, HOW[reason] ?? "close");
    return this.closed ? NEVER : this.#nextDue(now).at;
  }

  /** The alarm: a request's deadline is near, or there. Says when the next one is that the wheel will not look at. */
  onAlarm(now: number): number {
    if (this.closed) return NEVER;
    this.#expire(now);
    const next = this.#firstDeadline();
    return next <= now + LEAD_MS ? next : NEVER;
  }

  /** It has reached its age. */
  #age(now: number): void {
    this.#extra().endsAt = now + this.endpoint.drainMs;
    this.drain("max-age");
  }

  /** False when the peer has missed too many, and the connection is to end. */
  #ping(now: number): boolean {
    const { transport, service, env } = this.endpoint;
    const at = this.#slot * COUNTER.words;
    const receivedAt = transport.counters[at + COUNTER.receivedAt] as number;
    const progressAt = transport.counters[at + COUNTER.progressAt] as number;
    const standing = { busyUntil: this.#busyUntil, inFrame: this.#frameSince !== 0, most: service.missed };
    if (!this.#beat?.ping(now, { receivedAt, progressAt }, standing)) return false;
    try {
      const ping = service.heartbeat?.ping(this, env) as Out;
      this.send(ping);
    } catch (error) {
      this.#handlerFailed(error);
    }
    return true;
  }

  /** The endpoint's settings have changed: a deadline may have become shorter. */
  reconfigured(): void {
    this.#lookAgain();
  }

  /** The endpoint's log has another level. */
  followLogLevel(): void {
    if (this.#extras?.log) this.#extras.log.level = this.endpoint.log.level;
  }

  /** A deadline may fall due earlier than the wheel would look. */
  #lookAgain(): void {
    const { transport, wheel } = this.endpoint;
    if (this.#phase !== "open" && this.#phase !== "draining") return;
    wheel.schedule(this.#slot, this.#nextDue(transport.now).at);
  }

  #nextDue(now: number): Due {
    const open = this.#phase === "open";
    const held = this.#held;
    return nextDue(this.endpoint, this.#slot, now, {
      deadlines: this.#deadlines,
      busy: this.#inFlight > 0 || this.#blocked,
      blocked: this.#blocked,
      busyUntil: this.#busyUntil,
      frameSince: this.#frameSince,
      frameBytes: held ? held.to - held.from : 0,
      endsAt: open ? agesAt(this.endpoint, this.#deadlines, this.#openedAt) : (this.#extras?.endsAt ?? NEVER),
      beat: open ? this.#beat : undefined,
      requestAt: this.#extras?.flights ? this.#lookOut(now) : NEVER,
      lingersUntil: open ? 0 : (this.#extras?.lingersUntil ?? 0),
    });
  }

  /** When to look for requests that are late: some time before the first deadline, or after the alarm has. */
  #lookOut(now: number): number {
    const first = this.#firstDeadline();
    if (first > now + LEAD_MS) return first - LEAD_MS;
    this.endpoint.alarm.schedule(this.#slot, first);
    return first + LEAD_MS;
  }

  // ---- between two workers (src/worker/migration.ts) ----

  /** Takes no more requests, and tells `onQuiet` when it can be suspended. False when it cannot move. */
  leave(onQuiet: (connection: ServedConnection) => void): boolean {
    // The keys of TLS are OpenSSL's, and do not travel.
    if (this.#phase !== "open" || this.#leaving || this.tls) return false;
    this.#leaving = { onQuiet, frameSince: this.#frameSince, since: this.endpoint.transport.now, packed: undefined };
    this.#block();
    this.#tellIfQuiet();
    return true;
  }

  /** Of one that was told to leave: `busy` while a request is in flight or somebody waits for `drained()`. */
  get standing(): "quiet" | "busy" | "staying" {
    if (!this.#leaving || this.#phase !== "open") return "staying";
    return this.#inFlight > 0 || (this.#extras?.waiters.length ?? 0) > 0 ? "busy" : "quiet";
  }

  /** It does not leave after all, and goes on as if it had never been told to. */
  stay(): void {
    const leaving = this.#leaving;
    if (!leaving || this.closed) return;
    this.#leaving = undefined;
    const { transport, wheel } = this.endpoint;
    this.#blocked = this.#mustWait();
    if (!this.#blocked && leaving.frameSince !== 0) {
      this.#frameSince = leaving.frameSince + transport.now - leaving.since;
    }
    wheel.schedule(this.#slot, this.#nextDue(transport.now).at);
    if (!this.#blocked) this.#advance();
    leaving.onQuiet(this as ServedConnection);
  }

  /**
   * Takes a quiet connection out of the engine; from now on it is `closed` to whoever holds it here. Ends with `gone`
   * or `takeBack`. Undefined when it cannot move (`failed` hears why, when something failed): then it stays. Throws
   * inside a round.
   */
  suspend(failed: (error: unknown) => void): MovedConnection | undefined {
    const leaving = this.#leaving;
    if (!leaving || this.standing !== "quiet") return undefined;
    let moved: MovedConnection | undefined;
    try {
      leaving.packed = packState(this, this.endpoint);
      moved = leaving.packed && this.#release(leaving, leaving.packed);
    } catch (error) {
      failed(error);
    }
    if (!moved) {
      this.#resumeHere(leaving);
      this.stay();
    }
    return moved;
  }

  /** The other worker has it: closed here for good. The service does not hear of it, and no reason is counted. */
  gone({ entry }: MovedConnection): void {
    const { transport, index, row } = this.endpoint;
    transport.leave(index, entry);
    count(row, MOVED_OUT, 1);
    count(row, ACTIVE, -1);
    this.#leaving = undefined;
    this.#closeToHolders("moved");
  }

  /**
   * The other worker does not have it: it goes on here. False when not even that can be done: then it has ended, and
   * the descriptor is still the caller's.
   */
  takeBack(moved: MovedConnection): boolean {
    const { transport, wheel, index } = this.endpoint;
    this.#phase = "open";
    try {
      this.#slot = transport.adopt(index, moved.fd, this, { entry: moved.entry, peer: moved.remote, counters: moved });
    } catch (error) {
      this.log.error({ err: error }, "a connection that could not move could not go on either");
      transport.leave(index, moved.entry);
      this.#ended("io-error");
      return false;
    }
    this.#generation = transport.generation(this.#slot);
    wheel.start(this.#slot, NEVER);
    this.#rejoin(moved, [moved.unsent]);
    if (this.#leaving) this.#resumeHere(this.#leaving);
    this.stay();
    return true;
  }

  /**
   * Comes from another worker, as a connection that was made with its id. Nothing is read or written before `begin`.
   * Throws what the engine and the service throw; then the descriptor is still the caller's, and this one is closed.
   */
  arrive(moved: MovedConnection, stateVersion: number): void {
    const { endpoint } = this;
    const { transport } = endpoint;
    const place = { entry: ENTRY.notCounted, peer: moved.remote, counters: moved };
    this.#slot = transport.adopt(endpoint.index, moved.fd, this, place);
    this.#phase = "arriving";
    this.#arriving = { moved, early: [], bytes: moved.unsent.length };
    this.#generation = transport.generation(this.#slot);
    endpoint.requests = Math.max(endpoint.requests, moved.requests);
    if (this.remote.host === "") this.#extra().remote = moved.remote;
    if (moved.origin) this.comesFrom(moved.origin);
    this.seen = moved.seen;
    this.mode = moved.mode;
    this.#busyUntil = moved.busyUntil;
    this.#backedUp = moved.backedUp;
    this.#inputEnded = moved.inputEnded;
    this.#reading = moved.reading;
    if (moved.pausedByUser) this.#extra().pausedByUser = true;
    this.#openedAt = moved.openedAt;
    if (moved.own.length > 0) this.#deadlines = new OwnDeadlines(endpoint, moved.own);
    if (this.#beat && moved.beat.activeAt > 0) this.#beat = new Beat(moved.beat);
    if (moved.held.length > 0) this.#held = new Held(endpoint.memory, moved.held, 0, moved.held.length);
    this.#block();
    for (const topic of moved.topics) this.subscribe(topic);
    for (const message of moved.waiting) this.#letWait(this.#topics(), message);
    try {
      unpackState(this as ServedConnection, endpoint, moved.state, stateVersion);
      this.#hasState = true;
    } catch (error) {
      this.forget();
      throw error;
    }
  }

  /** The other worker could not be told that it has arrived: it never did. Its descriptor is the caller's again. */
  forget(): void {
    const { transport, index } = this.endpoint;
    transport.leave(index, transport.release(this.#slot, this.#generation).entry);
    this.#arriving = undefined;
    this.#closeToHolders("moved");
    this.#tellClosed("server-close");
  }

  /** The other worker lets go of it: reads, writes and handles from here on. */
  begin(): void {
    const arriving = this.#arriving;
    if (!arriving) return;
    const { transport, wheel, row } = this.endpoint;
    const { moved, early, ending } = arriving;
    this.#arriving = undefined;
    this.#phase = "open";
    count(row, MOVED_IN, 1);
    count(row, ACTIVE, 1);
    wheel.start(this.#slot, NEVER);
    this.#rejoin(moved, [moved.unsent, ...early]);
    if (ending) {
      this.#end(ending.reason, ending.how);
      return;
    }
    this.#blocked = this.#mustWait();
    if (!this.#blocked) this.#frameSince = moved.frameSince;
    wheel.schedule(this.#slot, this.#nextDue(transport.now).at);
    if (this.#blocked) this.#settle();
    else this.#advance();
  }

  #release(leaving: Leaving, packed: PackedState): MovedConnection | undefined {
    // The service may have done something to it in `suspend`.
    if (this.standing !== "quiet") return undefined;
    const { transport } = this.endpoint;
    const record = this.#record(packed, leaving);
    const bytes = this.bufferedBytes + record.held.length + packed.bytes.length;
    if (bytes > MOVED_BYTES_MAX) {
      throw new HeadraceError("service-invalid", `a connection that holds ${bytes} bytes does not move`, {
        given: String(bytes),
        allowed: `at most ${MOVED_BYTES_MAX} (received, unsent and state)`,
      });
    }
    try {
      const released = transport.release(this.#slot, this.#generation);
      this.#phase = "away";
      return { ...record, ...released };
    } catch (error) {
      // The socket has failed, which the next round reports.
      if (error instanceof HeadraceError && error.fields.errno === "EBADF") return undefined;
      throw error;
    }
  }

  #record(state: PackedState, { frameSince, since }: Leaving): Omit<MovedConnection, keyof ReleasedSlot> {
    const { transport, requests } = this.endpoint;
    const held = this.#held;
    return {
      id: this.id,
      remote: this.remote,
      origin: this.#extras?.origin,
      requests,
      seen: this.seen,
      mode: this.mode,
      openedAt: this.#openedAt,
      own: this.#deadlines instanceof OwnDeadlines ? this.#deadlines.own : NONE_OWN,
      beat: this.#beat ?? NO_BEAT,
      topics: this.#extras?.topics?.names ?? NO_TOPICS,
      waiting: this.#extras?.topics?.waiting ?? NONE_WAIT,
      frameSince: frameSince === 0 ? 0 : frameSince + transport.now - since,
      busyUntil: this.#busyUntil,
      backedUp: this.#backedUp,
      pausedByUser: this.#extras?.pausedByUser === true,
      inputEnded: this.#inputEnded,
      reading: this.#reading,
      held: held ? held.bytes.subarray(held.from, held.to) : Buffer.alloc(0),
      state,
    };
  }

  /** After `suspend` comes `resume`, also when the connection never left. */
  #resumeHere({ packed }: Leaving): void {
    if (packed?.kind !== "own" || this.#phase !== "open") return;
    const { service, env } = this.endpoint;
    try {
      service.resume?.(this, new Uint8Array(packed.bytes), env, service.stateVersion);
    } catch (error) {
      this.endpoint.once("resume", (log) => log.error({ err: error, connection: this.id }, "resume failed"));
    }
  }

  /** Tells an engine that has it anew what its last one knew; `parts` are the first bytes to send. */
  #rejoin({ unsent, progressAt }: MovedConnection, parts: readonly Uint8Array[]): void {
    const { transport, limits } = this.endpoint;
    const slot = this.#slot;
    let bytes = 0;
    for (const part of parts) {
      if (part.length > 0) transport.sendLarge(slot, this.#generation, part);
      bytes += part.length;
    }
    // The kernel took nothing: the stall that began before the move goes on.
    if (unsent.length > 0 && transport.unsent[slot] === bytes) {
      transport.counters[slot * COUNTER.words + COUNTER.progressAt] = progressAt;
    }
    if (this.#backedUp) transport.notifyBelow(slot, this.#generation, limits.lowWater);
    if (!this.#reading) transport.pause(slot, this.#generation);
  }

  /** Something has ended that kept it busy, or it has itself. */
  #tellIfQuiet(): void {
    if (this.#leaving && this.standing !== "busy") this.#leaving.onQuiet(this as ServedConnection);
  }

  // ---- bytes to requests ----

  /** Cuts and handles messages; returns how far it came. Stops at an unfinished frame, or when blocked. */
  #consume(bytes: Buffer, from: number, to: number): number {
    const { timing } = this.endpoint;
    const { codec } = this.endpoint.service;
    const maxFrameBytes = this.endpoint.limits.frame;
    this.#consuming = true;
    try {
      while (from < to && !this.#blocked) {
        const timed = --timing.untilSample <= 0;
        const used = timed ? this.#decodeTimed(bytes, from, to) : codec.decode(bytes, from, to, this, maxFrameBytes);
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

  /** One of many: what it takes is what the others take. */
  #decodeTimed(bytes: Buffer, from: number, to: number): number {
    const { timing, service, limits } = this.endpoint;
    const { laps } = timing;
    const begun = laps.now();
    const used = service.codec.decode(bytes, from, to, this, limits.frame);
    const done = laps.now();
    timing.sampled(begun, done, laps.now());
    return used;
  }

  /** What has just been done was no request's work, unless it was. */
  #noLap(): void {
    if (handlersRunning === 0) this.endpoint.timing.laps.forget();
  }

  #hold(bytes: Buffer, from: number, to: number): void {
    this.#held = new Held(this.endpoint.memory, bytes, from, to);
    this.#noLap();
    this.#frameBegun();
  }

  /** Whatever is held and not blocked is an unfinished frame, and its clock runs. */
  #frameBegun(): void {
    if (this.#blocked) {
      this.#frameSince = 0;
      return;
    }
    const { transport, wheel } = this.endpoint;
    this.#frameSince = transport.now;
    wheel.schedule(this.#slot, this.#frameSince + this.#deadlines.frameMs);
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
        held.drop();
        this.#held = undefined;
        this.#noneHeld();
      } else if (used > held.from || this.#frameSince === 0) {
        held.use(used);
        this.#frameBegun();
      }
    }
    this.#settle();
  }

  /** Brings reading and the end of the connection into line with its state. */
  #settle(): void {
    if (this.#phase === "closed" || this.#consuming) return;
    const { transport } = this.endpoint;
    if (this.#blocked && this.#reading && (this.#held || this.#heldBack)) {
      this.#reading = false;
      transport.pause(this.#slot, this.#generation);
    } else if (!this.#blocked && !this.#reading) {
      this.#reading = true;
      transport.resume(this.#slot, this.#generation);
    }
    if (this.#inFlight > 0) return;
    if (this.#farewellOver()) this.#takeLeave();
    if (this.#blocked || this.closed) return;
    if (this.#inputEnded) this.#end("peer-closed", "close");
    else if (this.#phase === "draining" && !this.#held && (this.#extras?.lingersUntil ?? 0) === 0) {
      this.#takeLeave();
    }
  }

  /** Ends, drained: all that was begun has been answered, and nothing more is begun. */
  #takeLeave(): void {
    const { service, transport } = this.endpoint;
    const { lastGoodbye } = service;
    // Past all marks: nothing comes after it that could wait.
    if (lastGoodbye !== undefined) transport.sendLarge(this.#slot, this.#generation, this.#encode(lastGoodbye as Out));
    this.#end(this.#endedBy as CloseReason, "close");
  }

  /** It has said goodbye, and waited long enough: what the peer sends all the same is not begun any more. */
  #farewellOver(): boolean {
    if (this.#phase !== "draining") return false;
    const { lingersUntil } = this.#extras ?? NO_FAREWELL;
    return lingersUntil !== 0 && lingersUntil <= this.endpoint.transport.now;
  }

  /** Takes no input: the peer cannot be late with what it may not send. */
  #block(): void {
    this.#blocked = true;
    this.#frameSince = 0;
  }

  #unblock(): void {
    if (this.closed) return;
    if (this.#blocked) this.#busyUntil = Math.floor(this.endpoint.transport.now);
    this.#blocked = this.#mustWait();
    if (this.#blocked) this.#tellIfQuiet();
    else if (this.#held === undefined || this.endpoint.tracer === undefined) this.#advance();
    // Whose handler has let it go on is not whose request comes next.
    else this.endpoint.tracer.outside(() => this.#advance());
    if (this.#phase === "draining") this.#settle();
  }

  #mustWait(): boolean {
    return (
      this.#farewellOver() ||
      this.#inFlight >= this.endpoint.maxInFlight ||
      // Its request is over, and it is not: the next one must not run beside it.
      (this.endpoint.serial && (this.#extras?.stragglers ?? 0) > 0) ||
      this.#backedUp ||
      this.#heldBack ||
      this.#extras?.pausedByUser === true ||
      this.#leaving !== undefined ||
      this.#arriving !== undefined
    );
  }

  // ---- requests to replies ----

  #request(message: unknown): void {
    const { endpoint } = this;
    let context: Request<State, Out, unknown> | undefined;
    try {
      context = this.#requestOf(message);
    } catch (error) {
      // A hook that reads the message, which is the peer's.
      this.#handlerFailed(error);
    }
    if (!context) return;
    count(endpoint.row, REQUESTS, 1);
    const { timing } = endpoint;
    const exact = endpoint.waits;
    let outer = 0;
    if (handlersRunning > 0) outer = timing.laps.nest();
    else timing.begin(exact);
    handlersRunning += 1;
    const trace = context.flight?.trace;
    try {
      const refused = this.#refusal(context);
      const reply = refused
        ? this.#refuse(refused, context)
        : ((trace === undefined
            ? endpoint.handle(message, context)
            : trace.run(endpoint.handle, message, context)) as Reply<Out>);
      if (isThenable(reply)) this.#wait(reply, context);
      else if (this.#extras?.order?.empty === false) this.#queue(reply as Out | undefined, context);
      else if (reply !== undefined) this.#answer(reply as Out);
    } catch (error) {
      trace?.fail(error);
      if (this.#extras?.order?.empty === false) this.#place("error", error, context);
      else this.#requestFailed(error, context);
    } finally {
      handlersRunning -= 1;
      if (outer !== 0) timing.finishNested(context.ticket === NO_TICKET ? endpoint.row : undefined, outer);
      else if (context.ticket === NO_TICKET) timing.finish(endpoint.row, exact);
      else timing.leave();
    }
    if (context.flight && !context.waiting) {
      trace?.end();
      this.#land(context);
    }
    if (endpoint.poison) poison(message);
  }

  /** The request that a message is, unless it is none. */
  #requestOf(message: unknown): Request<State, Out, unknown> | undefined {
    const { endpoint } = this;
    if (this.#beat && this.#isPong(this.#beat, message)) return undefined;
    if (endpoint.multiplexed && this.#isCancel(message)) return undefined;
    const wireId = endpoint.multiplexed ? endpoint.service.requestId?.(message) : undefined;
    if (this.#extras?.byId?.has(wireId) === true) {
      this.#end("protocol-error", "close");
      return undefined;
    }
    const deadline = endpoint.timed ? endpoint.deadlineOf(message, this.#receivedAt) : NEVER;
    const context = new Request<State, Out, unknown>(this, ++endpoint.requests, message, deadline);
    context.wireId = wireId;
    if (endpoint.ranked) context.flight = endpoint.flight(message);
    if (endpoint.tracer !== undefined) endpoint.tracer.begin(context as Request<unknown, unknown, unknown>);
    return context;
  }

  /** Clock (ms) of the last bytes from the peer. */
  get #receivedAt(): number {
    return this.endpoint.transport.counters[this.#slot * COUNTER.words + COUNTER.receivedAt] as number;
  }

  /** A message that cancels a request is none, and reaches no other hook. */
  #isCancel(message: unknown): boolean {
    const cancelled = this.endpoint.service.cancels?.(message);
    if (cancelled === undefined) return false;
    const context = this.#extras?.byId?.get(cancelled);
    if (context) this.#cancel(context as Request<State, Out, unknown>);
    return true;
  }

  /** Why a request is not begun, if it is not. Throws when its deadline has passed. */
  #refusal(context: Request<State, Out, unknown>): ServerBusy | undefined {
    const { endpoint } = this;
    const { gate } = endpoint;
    if (context.deadline <= endpoint.transport.now) {
      context.flight ??= new Flight("normal");
      context.flight.cancel(new DeadlineExceeded(LATECOMER));
      throw context.flight.over;
    }
    const extras = this.#extras;
    if (extras !== undefined && extras.stragglers >= endpoint.limits.inFlight)
      return new ServerBusy("in-flight", STRAY);
    return gate.alerts !== 0 || gate.inFlight >= endpoint.inFlightMark ? endpoint.refusal(context.message) : undefined;
  }

  #isPong(beat: Beat, message: unknown): boolean {
    if (this.endpoint.service.heartbeat?.isPong(message) === true) return true;
    beat.activeAt = this.endpoint.transport.now;
    return false;
  }

  /** The protocol's busy reply, or an error for whoever answers those. */
  #refuse(error: ServerBusy, context: Request<State, Out, unknown>): Out {
    const { service, row } = this.endpoint;
    if (!service.busy) throw error;
    context.flight?.trace?.fail(error);
    count(row, SHED, 1);
    return service.busy(context.message) as Out;
  }

  /** It is in flight, since its lap began. */
  #begin(context: Request<State, Out, unknown>): void {
    const { inFlight, laps } = this.endpoint.timing;
    this.endpoint.waits = true;
    this.#inFlight += 1;
    this.#tickets = inFlight.take(laps.begun, this.#tickets);
    context.ticket = this.#tickets;
    if (this.#inFlight >= this.endpoint.maxInFlight) this.#block();
  }

  /** One that was in flight is over. */
  #finish(ticket: number): void {
    const { timing, row } = this.endpoint;
    const { inFlight, laps } = timing;
    this.#inFlight -= 1;
    observe(row, laps.now() - inFlight.began(ticket));
    this.#tickets = inFlight.give(ticket, this.#tickets);
  }

  /** So many more of its handlers run; a reply that only waits for its turn has none. */
  #run(handlers: number): void {
    this.endpoint.gate.inFlight += handlers;
    count(this.endpoint.row, IN_FLIGHT, handlers);
  }

  #wait(reply: PromiseLike<unknown>, context: Request<State, Out, unknown>): void {
    // Its handler has closed the connection, and what was in flight then is counted off already.
    if (this.closed) {
      context.flight?.trace?.cut(closedError(this.#endedBy));
      Promise.resolve(reply).catch(() => {});
      return;
    }
    this.#begin(context);
    this.#run(1);
    this.#await(context);
    // Promise.resolve: a native promise stays itself; anything else may throw or settle twice.
    Promise.resolve(reply).then(
      (value) => this.#settled("reply", value, context),
      (error: unknown) => this.#settled("error", error, context),
    );
  }

  #settled(outcome: Outcome, value: unknown, context: Request<State, Out, unknown>): void {
    if (!context.waiting) {
      this.#extra().stragglers -= 1;
      if (this.endpoint.serial) this.#unblock();
      return;
    }
    this.#land(context);
    const { replyOf } = this.endpoint.service;
    const reply: unknown = replyOf && outcome === "reply" ? replyOf(value, context.message) : value;
    if (reply !== undefined) context.flight?.answered();
    const trace = context.flight?.trace;
    if (outcome === "error") trace?.fail(value);
    this.#finished(context.place, outcome, reply, context);
    trace?.end();
  }

  /** A plain reply behind unfinished ones: encoded now, because a borrowed message is gone when its turn comes. */
  #queue(reply: Out | undefined, context: Request<State, Out, unknown>): void {
    this.#place("encoded", reply === undefined || this.closed ? undefined : this.#encode(reply), context);
  }

  /** A place behind unfinished replies for an outcome that is there already. */
  #place(outcome: Outcome, value: unknown, context: Request<State, Out, unknown>): void {
    if (this.closed) return;
    const order = this.#order();
    const place = order.add();
    const bytes = value instanceof Uint8Array && outcome === "encoded" ? value.length : 0;
    this.#orderHolds(bytes);
    order.ready += 1;
    place.conclude = () => {
      this.#orderHolds(-bytes);
      order.ready -= 1;
      this.#conclude(outcome, value, context);
    };
    this.#begin(context);
  }

  /** So many bytes more wait for their turn. */
  #orderHolds(bytes: number): void {
    this.#order().bytes += bytes;
    this.endpoint.memory.add(bytes);
  }

  #finished(place: Place | undefined, outcome: Outcome, value: unknown, context: Request<State, Out, unknown>): void {
    if (this.closed) return;
    const conclude = (): void => {
      this.#run(-1);
      this.#conclude(outcome, value, context);
    };
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
    this.#finish(context.ticket);
    this.#busyUntil = Math.floor(this.endpoint.transport.now);
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
    const reason = reasonOf(error);
    const busy = reason === "overload";
    if (busy) count(this.endpoint.row, SHED, 1);
    else if (reason === "request-timeout") count(this.endpoint.row, LATE, 1);
    try {
      if (busy && service.busy) this.#answer(service.busy(context.message) as Out);
      else if (!service.onError) this.#failed(error, reason);
      else {
        const answer = service.onError(error, context, context.message);
        if (answer === "reset" || answer === "close") this.#end(reason, answer);
        else if (answer) this.#answer(answer.reply as Out);
        else if (context.flight?.over) this.#end(reason, "close");
      }
    } catch (second) {
      this.#handlerFailed(second);
    }
  }

  /** An async handler where none is awaited: its rejection is a failure like a throw. */
  #guard(result: unknown): void {
    if (isThenable(result)) Promise.resolve(result).catch((error: unknown) => this.#handlerFailed(error));
  }

  /** Nobody answers it. Overload and deadlines are not worth a line in the log each. */
  #failed(error: unknown, reason: CloseReason): void {
    if (reason === "handler-error") this.#handlerFailed(error);
    else this.#end(reason, "close");
  }

  #handlerFailed(error: unknown): void {
    this.log.error({ err: error }, "a handler failed; the connection is closed");
    this.#end("handler-error", "close");
  }

  // ---- requests that wait: deadlines, tasks, signals ----

  /** The request's own, if it may end before the connection; else that of the connection. */
  signalOf(context: Request<State, Out, unknown>): AbortSignal {
    const own = context.deadline !== NEVER || this.endpoint.service.cancels !== undefined;
    return own && !this.closed ? this.#fly(context).signal : this.signal;
  }

  /** Runs a task that ends with the request. */
  runTask(
    context: Request<State, Out, unknown>,
    pool: object,
    name: string,
    args: readonly unknown[],
  ): Promise<unknown> {
    const { pools, service, transport } = this.endpoint;
    const known = pools.find((one) => one === pool);
    if (!known) return Promise.reject(foreignPool(pool as TaskPool, service.name));
    if (this.closed) return Promise.reject(closedError(this.#endedBy));
    const flight = this.#fly(context);
    if (flight.over) return Promise.reject(flight.over);
    const run = (): Promise<unknown> => {
      const task = known.begin(name, args, flight.priority, context.deadline - transport.clock());
      flight.add(task, known as Canceller);
      return task.promise;
    };
    return flight.trace ? flight.trace.task(known.name, name, run) : run();
  }

  /** Asks another server for the request, in what is left of its time. */
  callClient<Asked, Answered>(
    context: Request<State, Out, unknown>,
    client: Callable<Asked, Answered>,
    message: Asked,
    { atMostMs = NEVER, ...options }: DownstreamOptions,
  ): Promise<Answered> {
    if (typeof client?.[BEGIN_CALL] !== "function") return Promise.reject(noClient());
    if (this.closed) return Promise.reject(closedError(this.#endedBy));
    const flight = this.#fly(context);
    if (flight.over) return Promise.reject(flight.over);
    const { traceparent: given, priority = flight.priority } = options;
    const leftMs = Math.min(atMostMs, context.remainingMs());
    const ask = (traceparent: string | undefined): Promise<Answered> => {
      const traced = traceparent === undefined ? {} : { traceparent };
      return client[BEGIN_CALL](message, { ...options, ...traced, priority }, leftMs, flight.calls);
    };
    if (flight.trace) return flight.trace.call(client.name, given, ask);
    const { tracer } = this.endpoint;
    return ask(given ?? (tracer ? tracer.passedOn(context.traceparent) : context.traceparent));
  }

  /** Has the connection look after the request until it lands. */
  #fly(context: Request<State, Out, unknown>): Flight {
    context.flight ??= this.endpoint.flight(context.message);
    // A request that was answered without a promise may still use its context: nobody waits for that.
    if (context.waiting || handlersRunning > 0) this.#track(context);
    return context.flight;
  }

  #track(context: Request<State, Out, unknown>): void {
    const extras = this.#extra();
    extras.flights ??= new Set();
    extras.flights.add(context as Request<never, never, unknown>);
  }

  /** Nothing can end it any more. */
  #land(context: Request<State, Out, unknown>): void {
    const extras = this.#extras;
    extras?.flights?.delete(context as Request<never, never, unknown>);
    if (context.waiting) extras?.byId?.delete(context.wireId);
    context.waiting = false;
  }

  /** Its handler has returned a promise. */
  #await(context: Request<State, Out, unknown>): void {
    const { endpoint } = this;
    context.waiting = true;
    if (endpoint.ordered) context.place = this.#order().add();
    if (endpoint.keepsMessage && context.message instanceof Uint8Array) context.message = Buffer.from(context.message);
    if (endpoint.multiplexed) this.#byId().set(context.wireId, context as never);
    if (context.deadline !== NEVER) this.#watch(context);
    else if (context.flight?.trace) this.#track(context);
  }

  #byId(): Map<unknown, Request<never, never, unknown>> {
    const extras = this.#extra();
    extras.byId ??= new Map();
    return extras.byId;
  }

  /** Looks after its deadline. */
  #watch(context: Request<State, Out, unknown>): void {
    const { transport, wheel, alarm } = this.endpoint;
    const { deadline } = context;
    this.#track(context);
    if (deadline > transport.now + LEAD_MS) wheel.schedule(this.#slot, deadline - LEAD_MS);
    else alarm.schedule(this.#slot, deadline);
  }

  /** Of requests that wait. They are not in the order of their deadlines. */
  #firstDeadline(): number {
    let first = NEVER;
    for (const { waiting, deadline } of this.#extras?.flights ?? []) if (waiting && deadline < first) first = deadline;
    return first;
  }

  /** Answers requests whose deadline has passed, whatever their handlers still do. */
  #expire(now: number): void {
    for (const context of this.#extras?.flights ?? []) {
      if (!context.waiting || context.deadline > now) continue;
      if (this.closed) return;
      const error = lateError(this.endpoint);
      this.#giveUp(context, error);
      this.#finished(context.place, "error", error, context);
    }
  }

  /** Its client wants no reply any more. */
  #cancel(context: Request<State, Out, unknown>): void {
    count(this.endpoint.row, CANCELLED, 1);
    this.#giveUp(context, new RequestCancelled());
    this.#finished(context.place, "reply", undefined, context);
  }

  /** It is over, and its handler is not: that counts against `limits.inFlight` until it is. */
  #giveUp(context: Request<State, Out, unknown>, error: Error): void {
    this.#land(context);
    this.#extra().stragglers += 1;
    context.flight ??= new Flight("normal");
    context.flight.cancel(error);
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
    // The arena begins anew: of a broadcast, what went before may wait in buffers by now.
    if (at === 0) {
      this.endpoint.memory.guard();
      if (this.closed) return "closed";
    }
    return unsent > limits.highWater ? this.#slow() : "ok";
  }

  /** Before it may write: kept until `begin`. */
  #writeEarly(arriving: Arriving, message: Out): SendResult {
    const { limits } = this.endpoint;
    const bytes = this.#encode(message);
    if (arriving.bytes + bytes.length > limits.buffered) return "refused";
    arriving.early.push(bytes);
    arriving.bytes += bytes.length;
    if (arriving.bytes > limits.highWater) this.#backedUp = true;
    return this.#backedUp ? "slow" : "ok";
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
    this.endpoint.memory.guard();
    if (this.closed) return "closed";
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
    if (this.closed) return;
    const { transport, log, faults } = this.endpoint;
    const { flushMs } = this.#deadlines;
    if (log.levelVal <= DEBUG_LEVEL) this.#logClose(reason);
    if (isPeerFault(reason)) faults.note(reason, this);
    this.endpoint.noteClose(this.#serial, reason, this.#openedAt, this.#slot, this.#generation);
    if (how === "reset") transport.reset(this.#slot, this.#generation);
    else transport.close(this.#slot, this.#generation, flushMs);
    this.#ended(reason);
  }

  #logClose(reason: CloseReason): void {
    const { counters, now } = this.endpoint.transport;
    const at = this.#slot * COUNTER.words;
    const proxied = this.#extras?.origin?.peer ? { peer: this.peer } : {};
    const told = {
      connection: this.id,
      reason,
      remote: this.remote,
      ...proxied,
      // The clock is coarse, and the lot of its age stands below the point.
      durationMs: Math.max(0, Math.floor(now) - Math.floor(this.#openedAt)),
      bytesReceived: counters[at + COUNTER.received],
      bytesSent: counters[at + COUNTER.sent],
    };
    this.endpoint.log.debug(told, "connection closed");
  }

  /** The rest of the end, when the engine has the slot back. */
  #ended(reason: CloseReason): void {
    const { row } = this.endpoint;
    count(row, ACTIVE, -1);
    this.#run((this.#extras?.order?.ready ?? 0) - this.#inFlight);
    // Nobody waits for them any more.
    while (this.#tickets !== NO_TICKET) this.#finish(this.#tickets);
    count(row, LISTENER_CLOSED + reasonIndex(reason), 1);
    this.#closeToHolders(reason);
    this.#tellClosed(reason);
    this.#tellIfQuiet();
  }

  #closeToHolders(reason: Ending): void {
    this.#phase = "closed";
    this.#endedBy = reason;
    this.#held?.drop();
    this.#held = undefined;
    if (this.#extras?.order) this.#orderHolds(-this.#extras.order.bytes);
    if (this.#heldBack) this.endpoint.memory.forget(this);
    this.#extras?.topics?.end();
    this.#extras?.abort?.abort(closedError(reason));
    for (const { flight } of this.#extras?.flights ?? []) flight?.cancel(closedError(reason));
    for (const waiter of this.#extras?.waiters.splice(0) ?? []) waiter.reject(closedError(reason));
  }

  #tellClosed(reason: CloseReason): void {
    const { service, env } = this.endpoint;
    try {
      if (this.#hasState) this.#guard(service.onClose?.(this, reason, env));
    } catch (error) {
      this.log.error({ err: error }, "onClose failed");
    }
  }

  #extra(): Extras {
    this.#extras ??= {
      abort: undefined,
      log: undefined,
      waiters: [],
      order: undefined,
      flights: undefined,
      byId: undefined,
      stragglers: 0,
      lingersUntil: 0,
      pausedByUser: false,
      topics: undefined,
      endsAt: NEVER,
      remote: undefined,
      origin: undefined,
    };
    return this.#extras;
  }

  #topics(): Subscriptions {
    const extras = this.#extra();
    extras.topics ??= new Subscriptions(this.endpoint.topics, this.endpoint.service, this);
    return extras.topics;
  }

  #order(): OrderedReplies {
    const extras = this.#extra();
    extras.order ??= new OrderedReplies();
    return extras.order;
  }
}

/** Why a connection ends over an error that nobody answers. */
function reasonOf(error: unknown): CloseReason {
  // By their codes: the service may use another copy of this package.
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  if (code === "server-busy") return "overload";
  return code === "deadline-exceeded" ? "request-timeout" : "handler-error";
}

function lateError({ service, requestMs }: Endpoint): DeadlineExceeded {
  const limit = service.deadline ? "by its deadline" : `within ${requestMs} ms (timeouts.request)`;
  return new DeadlineExceeded(`the request was not answered ${limit}`);
}

/** A borrowed frame, or a message that has one as its payload. */
function poison(message: unknown): void {
  const bytes = message instanceof Uint8Array ? message : (message as { readonly payload?: unknown } | null)?.payload;
  if (bytes instanceof Uint8Array) bytes.fill(POISON);
}

function foreignPool({ name }: TaskPool, service: string): HeadraceError {
  const allowed = "pools that the service names";
  return new HeadraceError("service-invalid", `service ${service}: pool ${name} is not in its \`pools\``, {
    given: name,
    allowed,
  });
}

function noClient(): HeadraceError {
  return new HeadraceError("service-invalid", "context.call: expects a client first", {
    allowed: "what defineClient({ … }) returns",
  });
}

function count(row: Float64Array, index: number, by: number): void {
  row[index] = (row[index] as number) + by;
}

function brokenCodec(name: string, call: string, given: number, allowed: number): HeadraceError {
  return new HeadraceError("codec-broken", `codec ${name}: ${call} returned ${given} of ${allowed} bytes`, {
    given: String(given),
    allowed: `at most ${allowed}`,
  });
}

function closedError(reason: Ending): HeadraceError {
  return new HeadraceError("connection-closed", `the connection is closed (${reason})`, { given: reason });
}
