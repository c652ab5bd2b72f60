/**
 * Requests that come when they come: at random times (Poisson) of a given mean rate, over some connections, whatever the
 * server does with them. Latency counts from the time at which a request was due. Every reply is compared byte for byte
 * with its request; one with its first byte set is a busy reply.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";

const FRAME_BYTES = 64;
const PREFIX_BYTES = 4;
const WHOLE = PREFIX_BYTES + FRAME_BYTES;
const ID_AT = PREFIX_BYTES + 1;
/** For what is still unanswered when the last request was sent. */
const PATIENCE_MS = 3_000;
/** A timer may be late by as much. */
const SPIN_MS = 2;

export interface Outcome {
  /** Seconds in which was counted. */
  seconds: number;
  offered: number;
  /** Replies that came in those seconds, whenever their requests were due. */
  done: number;
  busy: number;
  /** Not answered PATIENCE_MS after the last one was sent. */
  unanswered: number;
  wrong: number;
  /** Of what was done, or not answered at all, ms, ascending. */
  latencies: number[];
}

interface Waiting {
  dueAt: number;
  counted: boolean;
}

/** At quantile `q` of ascending values. */
export function quantile(values: readonly number[], q: number): number {
  return values[Math.min(values.length - 1, Math.floor(values.length * q))] ?? Number.NaN;
}

export class OpenClient {
  readonly #sockets: Socket[] = [];
  readonly #rest = new Map<Socket, Buffer>();
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #outcome: Outcome | undefined;
  #onReply: () => void = () => {};
  /** Within it replies count, performance.now(). */
  #window: readonly [from: number, to: number] = [0, 0];
  #failure: Error | undefined;

  /** Throws what the connections fail with. */
  static async open(port: number, connections: number): Promise<OpenClient> {
    const client = new OpenClient();
    for (let each = 0; each < connections; each++) {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      await once(socket, "connect");
      client.#own(socket);
    }
    return client;
  }

  close(): void {
    for (const socket of this.#sockets) socket.removeAllListeners("close").destroy();
  }

  /** Requests per second that the server can do: so many are always under way. */
  async capacity(under: number, warmupMs: number, forMs: number): Promise<number> {
    const outcome = this.#begin();
    const startedAt = performance.now();
    const until = startedAt + warmupMs + forMs;
    this.#window = [startedAt + warmupMs, until];
    this.#onReply = () => {
      if (performance.now() < until) this.#send(performance.now(), true);
    };
    for (let each = 0; each < under; each++) this.#send(startedAt, true);
    await pause(warmupMs + forMs);
    const { done } = outcome;
    await this.#settle();
    return (done / forMs) * 1_000;
  }

  /** Offers `perSecond` requests for `warmupMs`, and then for `forMs` in which they count. */
  async offer(perSecond: number, warmupMs: number, forMs: number): Promise<Outcome> {
    const outcome = this.#begin();
    outcome.seconds = forMs / 1_000;
    this.#onReply = () => {};
    const startedAt = performance.now();
    const countFrom = startedAt + warmupMs;
    const until = countFrom + forMs;
    this.#window = [countFrom, until];
    for (let dueAt = startedAt; dueAt < until; ) {
      const now = performance.now();
      while (dueAt <= now && dueAt < until) {
        this.#send(dueAt, dueAt >= countFrom);
        dueAt += (-Math.log(1 - Math.random()) / perSecond) * 1_000;
      }
      const wait = dueAt - performance.now();
      await (wait > SPIN_MS ? pause(wait - SPIN_MS) : new Promise((resolve) => setImmediate(resolve)));
    }
    await this.#settle();
    outcome.latencies.sort((a, b) => a - b);
    return outcome;
  }

  #begin(): Outcome {
    if (this.#failure) throw this.#failure;
    this.#outcome = { seconds: 0, offered: 0, done: 0, busy: 0, unanswered: 0, wrong: 0, latencies: [] };
    return this.#outcome;
  }

  #own(socket: Socket): void {
    this.#sockets.push(socket);
    socket.on("data", (chunk) => this.#read(socket, chunk));
    socket.on("error", (error) => {
      this.#failure = error;
    });
    socket.on("close", () => {
      this.#failure ??= new Error("the server closed a connection");
    });
  }

  #send(dueAt: number, counted: boolean): void {
    const id = this.#next++ >>> 0;
    const frame = Buffer.alloc(WHOLE, id & 0xff);
    frame.writeUInt32BE(FRAME_BYTES);
    frame[PREFIX_BYTES] = 0;
    frame.writeUInt32BE(id, ID_AT);
    this.#waiting.set(id, { dueAt, counted });
    if (counted && this.#outcome) this.#outcome.offered += 1;
    this.#sockets[id % this.#sockets.length]?.write(frame);
  }

  #read(socket: Socket, chunk: Buffer): void {
    const rest = this.#rest.get(socket);
    const bytes = rest ? Buffer.concat([rest, chunk]) : chunk;
    let at = 0;
    for (; at + WHOLE <= bytes.length; at += WHOLE) this.#reply(bytes.subarray(at, at + WHOLE));
    if (at < bytes.length) this.#rest.set(socket, bytes.subarray(at));
    else this.#rest.delete(socket);
  }

  #reply(frame: Buffer): void {
    const id = frame.readUInt32BE(ID_AT);
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    const outcome = this.#outcome as Outcome;
    const right =
      frame.readUInt32BE() === FRAME_BYTES && frame.subarray(ID_AT + 4).every((byte) => byte === (id & 0xff));
    if (!waiting || !right) outcome.wrong += 1;
    else if (frame[PREFIX_BYTES] === 1) {
      if (waiting.counted) outcome.busy += 1;
    } else {
      const now = performance.now();
      const [from, to] = this.#window;
      if (now >= from && now < to) outcome.done += 1;
      if (waiting.counted) outcome.latencies.push(now - waiting.dueAt);
    }
    this.#onReply();
  }

  /** Everything is answered, or will not be soon. */
  async #settle(): Promise<void> {
    const until = performance.now() + PATIENCE_MS;
    while (this.#waiting.size > 0 && performance.now() < until && !this.#failure) await pause(5);
    const now = performance.now();
    for (const { dueAt, counted } of this.#waiting.values()) {
      if (!counted || !this.#outcome) continue;
      this.#outcome.unanswered += 1;
      this.#outcome.latencies.push(now - dueAt);
    }
    if (this.#failure) throw this.#failure;
  }

  /** Waits until nothing is under way any more, however long it takes. */
  async empty(): Promise<void> {
    while (this.#waiting.size > 0) {
      if (this.#failure) throw this.#failure;
      await pause(10);
    }
  }
}

function pause(forMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, forMs));
}
