/**
 * The side that connections come to; migration.ts says what both sides keep to. A batch is taken in portions of one
 * turn each: adopt them and call `resume`, put the answer into the channel, and only then read, write and handle.
 */
import { readdir } from "node:fs/promises";
import type { Logger } from "../base/log.ts";
import { ServedConnection } from "../connection/connection.ts";
import type { Endpoint } from "../connection/endpoint.ts";
import type { MovedConnection } from "../connection/moved.ts";
import { descriptorLimit } from "../engine/engine.ts";
import { ENTRY } from "../engine/layout.ts";
import { closeDescriptor } from "../os/descriptors.ts";
import { decodeBatch } from "./migration-batch.ts";
import { MoveChannel, readMemory } from "./migration-channel.ts";
import { takeOver } from "./migration-handover.ts";
import { type FromSource, type FromTarget, type Hello, PROTOCOL, summaryOf } from "./migration-messages.ts";
import { WaitingIn } from "./migration-waiting.ts";
import type { WorkerServer } from "./server.ts";
import { oncePerTurn } from "./slices.ts";

/** Of one turn, for adopting; what the connections then begin with comes on top, ms. */
const ADOPT_MS = 4;
/** Descriptors that are left for whatever else this process does. */
const SPARE_DESCRIPTORS = 64;

export interface ReceiveOptions {
  readonly channel: number;
  readonly server: WorkerServer;
  readonly log: Logger;
}

export interface ReceiveOutcome {
  readonly moved: number;
}

/** One of the sender's endpoints, here. */
interface Place {
  readonly endpoint: Endpoint;
  /** There. */
  readonly stateVersion: number;
}

/** A connection that has not been answered. */
interface Arrival {
  readonly place: Place;
  readonly moved: MovedConnection;
}

interface Batch {
  readonly number: number;
  readonly arrivals: readonly Arrival[];
  /** The first that is not answered. */
  next: number;
}

export class MoveReceiver {
  readonly #server: WorkerServer;
  readonly #log: Logger;
  readonly #channel: MoveChannel<FromSource, FromTarget>;
  readonly #batches: Batch[] = [];
  readonly #waiting = new WaitingIn();
  /** In the sender's order; undefined where there is no such listener here. */
  #places: readonly (Place | undefined)[] = [];
  #takingOver = 0;
  #moved = 0;
  #ended = false;
  readonly #schedule: () => void = oncePerTurn(() => this.#slice());
  readonly #done: Promise<void>;
  #resolve!: () => void;

  constructor({ channel, server, log }: ReceiveOptions) {
    this.#server = server;
    this.#log = log;
    this.#done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#channel = new MoveChannel(channel, {
      message: (message, fds) => this.#hear(message, fds),
      gone: () => this.#stop(),
      broken: (err) => this.#fail(err),
    });
  }

  async run(): Promise<ReceiveOutcome> {
    const endpoints = this.#server.endpoints.map(summaryOf);
    const room = await roomOf(this.#server);
    this.#channel.send({ type: "hello", version: PROTOCOL, endpoints, room });
    await this.#done;
    this.#channel.close();
    return { moved: this.#moved };
  }

  #hear(message: FromSource, fds: readonly number[]): void {
    switch (message.type) {
      case "hello":
        this.#meet(message);
        break;
      case "handOff":
        this.#takeOver(message, fds);
        break;
      case "batch":
        this.#batches.push(this.#readBatch(message, fds));
        this.#schedule();
        break;
      case "end":
        this.#ended = true;
        this.#schedule();
        break;
      default:
        closeAll(fds);
        throw new RangeError(`migration: unknown message ${JSON.stringify(message)}`);
    }
  }

  #meet(hello: Hello): void {
    // Else the other side sees that too, and sends nothing.
    if (hello.version !== PROTOCOL) return;
    this.#places = hello.endpoints.map(({ key, stateVersion }) => {
      const endpoint = this.#server.endpoints.find((each) => each.key === key);
      return endpoint && { endpoint, stateVersion };
    });
  }

  #takeOver({ endpoint: index, bytes }: Extract<FromSource, { type: "handOff" }>, fds: readonly number[]): void {
    const place = this.#places[index];
    if (!place) {
      closeAll(fds);
      throw new RangeError(`migration: no endpoint ${index}`);
    }
    this.#takingOver += 1;
    const { endpoint, stateVersion } = place;
    void takeOver(endpoint, { bytes, memory: fds[0], stateVersion }).then((problem) => {
      this.#channel.send({ type: "tookOver", endpoint: index, ...(problem === undefined ? {} : { problem }) });
      this.#takingOver -= 1;
      this.#schedule();
    });
  }

  /** One turn's work. */
  #slice(): void {
    const batch = this.#batches[0];
    if (batch) this.#answer(batch);
    if (batch && batch.next === batch.arrivals.length) this.#batches.shift();
    if (this.#batches.length > 0) this.#schedule();
    else if (this.#ended && this.#takingOver === 0) this.#resolve();
  }

  /** Takes as many of the batch as fit into one turn. Nothing else may happen between adopting and the answer. */
  #answer(batch: Batch): void {
    const from = batch.next;
    const until = performance.now() + ADOPT_MS;
    const arrived: { readonly connection: ServedConnection; readonly fd: number }[] = [];
    const refused: number[] = [];
    for (const arrival of batch.arrivals.slice(from)) {
      const connection = this.#adopt(arrival);
      if (connection) arrived.push({ connection, fd: arrival.moved.fd });
      else refused.push(batch.next);
      batch.next += 1;
      if (performance.now() >= until) break;
    }
    const count = batch.next - from;
    if (!this.#channel.sendNow({ type: "ack", batch: batch.number, from, count, refused })) {
      // The sender does not know, so they are the sender's still.
      for (const { connection, fd } of arrived) {
        connection.forget();
        closeDescriptor(fd);
      }
      this.#stop();
      return;
    }
    this.#moved += arrived.length;
    for (const { connection } of arrived) connection.begin();
  }

  #adopt({ place: { endpoint, stateVersion }, moved }: Arrival): ServedConnection | undefined {
    const connection = new ServedConnection(endpoint, -1, 0, moved.id);
    try {
      if (this.#server.stopping) throw new Error("this worker is about to stop");
      connection.arrive(moved, stateVersion);
      return connection;
    } catch (err) {
      const consequence = "a connection from another worker was refused and stays there; others like it are not logged";
      endpoint.once("refused", (log) => log.error({ err, connection: moved.id }, consequence));
      closeDescriptor(moved.fd);
      return undefined;
    }
  }

  /** Nothing more comes, and what was not answered is the other side's. Idempotent. */
  #stop(): void {
    for (const { arrivals, next } of this.#batches.splice(0)) {
      for (const { moved } of arrivals.slice(next)) closeDescriptor(moved.fd);
    }
    this.#ended = true;
    this.#channel.close();
    this.#schedule();
  }

  /** Takes the descriptors over; none is left when it throws. */
  #readBatch(message: Extract<FromSource, { type: "batch" }>, [memory = -1, ...fds]: readonly number[]): Batch {
    const { batch, count, bytes } = message;
    try {
      if (fds.length !== count) throw new RangeError(`migration: ${count} connections, ${fds.length} descriptors`);
      const arrivals = decodeBatch(readMemory(memory, bytes), count, this.#waiting).map(
        ({ endpoint, record }, index) => {
          const place = this.#places[endpoint];
          if (!place) throw new RangeError(`migration: no endpoint ${endpoint}`);
          return { place, moved: { ...record, fd: fds[index] as number, entry: ENTRY.notCounted } };
        },
      );
      return { number: batch, arrivals, next: 0 };
    } catch (error) {
      closeAll(fds);
      throw error;
    } finally {
      closeDescriptor(memory);
    }
  }

  #fail(err: unknown): void {
    this.#log.error({ err }, "taking connections over failed; the rest stays where it is");
    this.#stop();
  }
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeDescriptor(fd);
}

/** Connections that this process has descriptors for. */
async function roomOf({ stopping }: WorkerServer): Promise<number> {
  const open = (await readdir("/proc/self/fd")).length;
  return stopping ? 0 : Math.max(0, descriptorLimit() - open - SPARE_DESCRIPTORS);
}
