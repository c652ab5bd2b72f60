/**
 * The side that connections leave; migration.ts says what both sides keep to. A connection is told to leave shortly
 * before its turn, so that nobody waits for those in front of it, and is taken out of the engine once it is quiet.
 * Connections of a service with `handOff` are all told at once: what it hands off must not change any more.
 */
import type { Logger } from "../base/log.ts";
import type { ServedConnection } from "../connection/connection.ts";
import type { Endpoint } from "../connection/endpoint.ts";
import type { MovedConnection } from "../connection/moved.ts";
import { TlsStage } from "../connection/tls-stage.ts";
import { closeDescriptor } from "../os/descriptors.ts";
import { encodeRecord } from "./migration-batch.ts";
import { MoveChannel, writeMemory } from "./migration-channel.ts";
import { type Handed, handOff } from "./migration-handover.ts";
import {
  type Ack,
  type FromSource,
  type FromTarget,
  type Hello,
  obstacle,
  PROTOCOL,
  summaryOf,
} from "./migration-messages.ts";
import { WaitingOut } from "./migration-waiting.ts";
import type { WorkerServer } from "./server.ts";
import { inSlices, nextTurn, oncePerTurn, SLICE_MS } from "./slices.ts";

/** Connections that are on their way and not answered. */
const WINDOW = 256;
/** Of one batch. */
const BATCH_CONNECTIONS = 64;
const BATCH_BYTES: number = 1 << 20;
const IN_FLIGHT =
  "requests were in flight, or connections not served yet, for so long that its shared state could not be handed off";
const SECURED = "a connection with TLS, which does not move, came while its shared state was to be handed off";
/** The part of all the time there is in which a service with `handOff` must have answered what is in flight. */
const QUIET_PART = 0.8;
/** How long the other side has to say hello, ms. */
const HELLO_MS = 10_000;

export interface SendOptions {
  readonly channel: number;
  readonly server: WorkerServer;
  readonly log: Logger;
  /** Connections at most, chosen at random. Those that are busy are passed over, and no service hands off. */
  readonly most?: number;
  /** All connections of this worker move, so services hand off what they share. */
  readonly handOff: boolean;
  /** How long requests in flight are waited for, ms. */
  readonly withinMs: number;
}

export interface SendOutcome {
  readonly moved: number;
  /** Connections that are still here. */
  readonly kept: number;
  /** The other end went before its time. */
  readonly cut: boolean;
}

/** A connection out of the engine, until the other side has answered. */
interface Traveller {
  readonly connection: ServedConnection;
  readonly moved: MovedConnection;
}

class Deferred<T = void> {
  resolve!: (value: T) => void;
  readonly promise: Promise<T> = new Promise((resolve) => {
    this.resolve = resolve;
  });
}

/** The next batch. */
class Load {
  readonly travellers: Traveller[] = [];
  readonly parts: Uint8Array[] = [];
  bytes = 0;

  add(traveller: Traveller, endpoint: number, waiting: WaitingOut): void {
    this.travellers.push(traveller);
    for (const part of encodeRecord({ endpoint, record: traveller.moved }, waiting)) {
      this.parts.push(part);
      this.bytes += part.length;
    }
  }

  get full(): boolean {
    return this.travellers.length >= BATCH_CONNECTIONS || this.bytes >= BATCH_BYTES;
  }
}

export class MoveSender {
  readonly #options: SendOptions;
  readonly #server: WorkerServer;
  readonly #channel: MoveChannel<FromTarget, FromSource>;
  readonly #hello: Deferred<Hello | undefined> = new Deferred();
  readonly #done: Deferred = new Deferred();
  /** By endpoint: who waits for the answer to a hand-off. */
  readonly #handing = new Map<number, Deferred<string | undefined>>();

  /** Not told to leave yet. */
  #candidates: ServedConnection[] = [];
  /** Told to leave, and perhaps quiet. */
  #ready: ServedConnection[] = [];
  /** Told to leave; a request is in flight. */
  readonly #busy = new Set<ServedConnection>();
  readonly #waiting = new WaitingOut();
  /** By batch. */
  readonly #travelling = new Map<number, { readonly travellers: Traveller[]; left: number }>();
  #unanswered = 0;
  #batches = 0;
  #budget: number;
  #moved = 0;
  readonly #schedule: () => void = oncePerTurn(() => this.#slice());
  /** Hand-offs that are still under way. */
  #handOffs = 0;
  /** No connection is asked to leave any more. */
  #closing = false;
  #gone = false;
  /** Connections of these that are still in their preface move when they are through. */
  readonly #expected = new Set<Endpoint>();
  /** The same of services that are about to hand off: all of theirs have to be there first. */
  readonly #gathering = new Map<Endpoint, (connection: ServedConnection | undefined) => void>();
  /** An answer was not understood: whom it was about cannot be known. */
  #deaf = false;

  constructor(options: SendOptions) {
    this.#options = options;
    this.#server = options.server;
    this.#budget = options.most ?? Number.POSITIVE_INFINITY;
    this.#channel = new MoveChannel(options.channel, {
      message: (message) => this.#hear(message),
      gone: () => void this.#lost(),
      broken: (error) => this.#broken(error),
    });
  }

  async run(): Promise<SendOutcome> {
    const { withinMs, log } = this.#options;
    const endpoints = this.#server.endpoints.map(summaryOf);
    this.#channel.send({ type: "hello", version: PROTOCOL, endpoints, room: 0 });
    const late = setTimeout(() => this.#hello.resolve(undefined), HELLO_MS);
    const hello = await this.#hello.promise;
    clearTimeout(late);
    if (hello) {
      const enough = setTimeout(() => this.#close(), withinMs);
      const ignore = this.#server.onPrefaceEnd((endpoint, connection) => this.#goOnWithLate(endpoint, connection));
      this.#budget = Math.min(this.#budget, hello.room);
      this.#begin(hello);
      await this.#done.promise;
      ignore();
      clearTimeout(enough);
    } else {
      log.warn("no connections are moved: the other worker does not answer, or speaks another version");
    }
    this.#channel.send({ type: "end" });
    this.#channel.close();
    return { moved: this.#moved, kept: this.#server.connections().length, cut: this.#gone };
  }

  // ---- which ----

  #begin(hello: Hello): void {
    const { most, log } = this.#options;
    for (const [index, endpoint] of this.#server.endpoints.entries()) {
      const here = this.#server.connections().filter((each) => each.endpoint === endpoint);
      const connections = here.filter((each) => !each.tls);
      const handsOff = endpoint.service.handOff !== undefined;
      if (handsOff && !this.#options.handOff) continue;
      if (connections.length < here.length) {
        endpoint.once("tls", () => endpoint.log.info("connections with TLS do not move; they leave over drain.tls"));
        // What they share is theirs while they are here.
        if (handsOff) continue;
      }
      // What comes through a handshake does not move.
      const secures = endpoint.stages.some((stage) => stage instanceof TlsStage);
      const expected = endpoint.prefaces > 0 && !secures;
      if (connections.length === 0 && !expected && !handsOff) continue;
      const reason = obstacle(endpoint, hello.endpoints);
      if (reason !== undefined) {
        endpoint.once(reason, () => endpoint.log.info({ reason }, "connections of this service do not move"));
        continue;
      }
      if (endpoint.service.onOpen && !endpoint.service.resume) {
        const hint = "onOpen is not called again; implement resume if connections register somewhere";
        endpoint.once("resume missing", () => endpoint.log.info(`connections of this service move: ${hint}`));
      }
      if (handsOff) void this.#handOver(endpoint, index, connections);
      else this.#candidates = this.#candidates.concat(connections);
      if (!handsOff && !secures && most === undefined) this.#expected.add(endpoint);
    }
    if (most !== undefined) shuffle(this.#candidates);
    const wanted = this.#candidates.length;
    if (wanted > hello.room)
      log.warn({ wanted, room: hello.room }, "not all connections can move: descriptors are short");
    this.#schedule();
  }

  /** Hands a service's shared state over; its connections go on from there, or stay. */
  async #handOver(endpoint: Endpoint, index: number, connections: readonly ServedConnection[]): Promise<void> {
    this.#handOffs += 1;
    let handed = false;
    let secured = false;
    const quiet = new Deferred();
    const asked = [...connections];
    const busy = new Set<ServedConnection>();
    const isQuiet = (): boolean => busy.size === 0 && endpoint.prefaces === 0;
    const onQuiet = (connection: ServedConnection): void => {
      if (handed) this.#goOnWith(connection);
      else if (connection.standing !== "busy" && busy.delete(connection) && isQuiet()) quiet.resolve();
    };
    const ask = (connection: ServedConnection): void => {
      if (connection.leave(onQuiet) && connection.standing === "busy") busy.add(connection);
    };
    this.#gathering.set(endpoint, (connection) => {
      if (connection?.tls) {
        secured = true;
      } else if (connection) {
        asked.push(connection);
        ask(connection);
      }
      if (secured || isQuiet()) quiet.resolve();
    });
    await inSlices(connections, ask);
    if (!secured && !isQuiet()) {
      const enough = setTimeout(quiet.resolve, QUIET_PART * this.#options.withinMs);
      await quiet.promise;
      clearTimeout(enough);
    }
    await nextTurn();
    // What a request does to the shared state after it was handed off would be lost, although it was answered.
    const ready = isQuiet() && !secured;
    const problem = ready ? await this.#handOffTo(endpoint, index) : secured ? SECURED : IN_FLIGHT;
    await nextTurn();
    this.#gathering.delete(endpoint);
    if (problem === undefined && !this.#closing) {
      handed = true;
      this.#ready = this.#ready.concat(asked);
    } else {
      if (problem !== undefined) endpoint.log.warn({ problem }, "connections of this service do not move");
      await inSlices(asked, (connection) => connection.stay());
    }
    this.#handOffs -= 1;
    this.#schedule();
  }

  async #handOffTo(endpoint: Endpoint, index: number): Promise<string | undefined> {
    const given: Handed = await handOff(endpoint);
    if ("problem" in given) return given.problem;
    const { bytes, memory } = given;
    const answer = new Deferred<string | undefined>();
    this.#handing.set(index, answer);
    this.#channel.send({ type: "handOff", endpoint: index, bytes }, memory === undefined ? [] : [memory], (sent) => {
      if (memory !== undefined) closeDescriptor(memory);
      if (!sent || this.#gone) answer.resolve("the other worker has gone");
    });
    return answer.promise;
  }

  // ---- out ----

  #goOnWith(connection: ServedConnection): void {
    this.#busy.delete(connection);
    // It stays, and was told so.
    if (this.#closing) return;
    this.#ready.push(connection);
    this.#schedule();
  }

  /** One turn's work. */
  #slice(): void {
    const until = performance.now() + SLICE_MS;
    let load = new Load();
    while (this.#unanswered + load.travellers.length < WINDOW && this.#channel.waiting === 0 && !this.#closing) {
      if (this.#budget === 0 || (this.#ready.length === 0 && !this.#askNext())) break;
      this.#take(this.#ready.pop(), load);
      if (load.full) {
        this.#dispatch(load);
        load = new Load();
      }
      if (performance.now() < until) continue;
      this.#schedule();
      break;
    }
    this.#dispatch(load);
    if (this.#budget === 0) this.#close();
    this.#finish();
  }

  /** One that was accepted before the move is through its preface now, or has ended in it. */
  #goOnWithLate(endpoint: Endpoint, connection: ServedConnection | undefined): void {
    this.#gathering.get(endpoint)?.(connection);
    if (!this.#expected.has(endpoint)) return;
    if (connection && !connection.tls && !this.#closing) this.#candidates.push(connection);
    this.#schedule();
  }

  /** Tells the next connection to leave. A quiet one is ready at once. False when there is none. */
  #askNext(): boolean {
    const candidate = this.#candidates.pop();
    if (candidate?.leave((each) => this.#goOnWith(each)) && candidate.standing === "busy") this.#wait(candidate);
    return candidate !== undefined;
  }

  #wait(connection: ServedConnection): void {
    if (this.#options.most === undefined && !this.#closing) this.#busy.add(connection);
    else connection.stay();
  }

  #take(connection: ServedConnection | undefined, load: Load): void {
    if (connection?.standing === "busy") this.#wait(connection);
    if (connection?.standing !== "quiet") return;
    const moved = connection.suspend((err) => {
      const consequence = "a connection cannot move and is drained in the end; others like it are not logged";
      connection.endpoint.once("suspend", (log) => log.warn({ err, connection: connection.id }, consequence));
    });
    if (!moved) return;
    this.#server.transit.connections += 1;
    this.#budget -= 1;
    const dropped = this.#waiting.dropped;
    load.add({ connection, moved }, this.#server.endpoints.indexOf(connection.endpoint), this.#waiting);
    connection.endpoint.topics.drop(this.#waiting.dropped - dropped);
  }

  #dispatch({ travellers, parts, bytes }: Load): void {
    const count = travellers.length;
    if (count === 0) return;
    const batch = this.#batches++;
    this.#travelling.set(batch, { travellers, left: count });
    this.#unanswered += count;
    const notSent = (): void => {
      if (!this.#travelling.delete(batch)) return;
      this.#unanswered -= count;
      for (const traveller of travellers) this.#comesBack(traveller);
      this.#close();
    };
    try {
      const memory = writeMemory(parts, bytes);
      const fds = [memory, ...travellers.map(({ moved }) => moved.fd)];
      this.#channel.send({ type: "batch", batch, count, bytes }, fds, (sent) => {
        closeDescriptor(memory);
        if (!sent) notSent();
        this.#schedule();
      });
    } catch (err) {
      this.#options.log.error({ err }, "moving connections failed; the rest stays");
      notSent();
    }
  }

  // ---- back ----

  #hear(message: FromTarget): void {
    switch (message.type) {
      case "hello":
        this.#hello.resolve(message.version === PROTOCOL ? message : undefined);
        break;
      case "tookOver":
        this.#handing.get(message.endpoint)?.resolve(message.problem);
        break;
      case "ack":
        this.#acknowledge(message);
        break;
      default:
        throw new RangeError(`migration: unknown message ${JSON.stringify(message)}`);
    }
  }

  #acknowledge({ batch, from, count, refused }: Ack): void {
    const sent = this.#travelling.get(batch);
    const answered = sent?.travellers.slice(from, from + count) ?? [];
    if (!sent || answered.length !== count || count > sent.left) throw new RangeError("migration: an unknown batch");
    sent.left -= count;
    if (sent.left === 0) this.#travelling.delete(batch);
    this.#unanswered -= count;
    for (const [index, traveller] of answered.entries()) {
      if (refused.includes(from + index)) this.#comesBack(traveller);
      else this.#hasGone(traveller);
    }
    this.#schedule();
  }

  #hasGone({ connection, moved }: Traveller): void {
    connection.gone(moved);
    closeDescriptor(moved.fd);
    this.#server.transit.connections -= 1;
    this.#moved += 1;
  }

  #comesBack({ connection, moved }: Traveller): void {
    this.#server.transit.connections -= 1;
    if (!connection.takeBack(moved)) closeDescriptor(moved.fd);
  }

  // ---- the end ----

  /** Nobody leaves any more; who is on the way is waited for. */
  #close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#candidates = [];
    const staying = [...this.#busy, ...this.#ready];
    this.#busy.clear();
    this.#ready = [];
    void inSlices(staying, (connection) => connection.stay()).then(() => this.#schedule());
  }

  #finish(): void {
    if (this.#unanswered > 0 || this.#handOffs > 0 || this.#busy.size > 0) return;
    if (!this.#closing && [...this.#expected].some(({ prefaces }) => prefaces > 0)) return;
    if (this.#candidates.length === 0 && this.#ready.length === 0) this.#done.resolve();
  }

  /** The other side has gone: what it has not answered, it does not have. */
  async #lost(): Promise<void> {
    this.#gone = true;
    this.#hello.resolve(undefined);
    for (const answer of this.#handing.values()) answer.resolve("the other worker has gone");
    const back = [...this.#travelling.values()].flatMap(({ travellers, left }) => travellers.slice(-left));
    this.#travelling.clear();
    this.#close();
    await inSlices(back, (traveller) => {
      this.#unanswered -= 1;
      // Two workers must never have one connection, so one that may be there is given up here.
      if (this.#deaf) this.#hasGone(traveller);
      else this.#comesBack(traveller);
    });
    this.#schedule();
  }

  #broken(err: unknown): void {
    this.#options.log.error({ err }, "moving connections: an answer was not understood");
    this.#deaf = true;
    this.#close();
    // It answers what it has got, and goes.
    this.#channel.send({ type: "end" });
  }
}

function shuffle(list: unknown[]): void {
  for (let last = list.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [list[last], list[other]] = [list[other], list[last]];
  }
}
