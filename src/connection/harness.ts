/**
 * testConnection: a service's whole path (codec, handler, replies, deadlines, backpressure) without a socket and
 * with a clock that the test moves. Borrowed frames are always overwritten after the handler.
 */
import { pino } from "pino";
import type { Logger } from "../base/log.ts";
import { CLOSE_REASONS, type CloseReason } from "../base/reasons.ts";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS, type Limits, type Timeouts } from "../base/settings.ts";
import { COUNTER } from "../engine/layout.ts";
import { LISTENER_CLOSED } from "../os/scoreboard.ts";
import type { Connection } from "../service/connection.ts";
import type { Service } from "../service/define.ts";
import { ServedConnection } from "./connection.ts";
import { Endpoint } from "./endpoint.ts";
import type { Transport } from "./transport.ts";
import { Wheel } from "./wheel.ts";

export interface TestConnectionOptions<Env> {
  /** What the service's `env` would have made. */
  readonly env?: Env;
  /** Over the service's own and the defaults; bytes and counts. */
  readonly limits?: Partial<Limits>;
  /** Over the service's own and the defaults; ms or "off". */
  readonly timeouts?: Partial<Timeouts>;
  readonly remote?: { readonly host: string; readonly port: number };
  readonly log?: Logger;
}

export interface TestConnection<State, Out> {
  readonly connection: Connection<State, Out>;
  /** Why it ended; undefined while it is open. */
  readonly closed: CloseReason | undefined;
  /** True while the service does not take input: the peer would be held back by TCP. */
  readonly readsPaused: boolean;
  /** Bytes arrive from the peer (text as UTF-8). Nothing happens once it is closed. */
  push(bytes: Uint8Array | string): void;
  /** The peer sends no more. */
  end(): void;
  /** The connection is reset by the peer. */
  peerReset(): void;
  /** What was sent since the last call. */
  sent(): Buffer;
  /** Moves the clock; deadlines that fall due take effect. */
  tick(ms: number): void;
  /** The peer takes nothing from now on / takes everything again. */
  stallWrites(): void;
  resumeWrites(): void;
  /** The worker begins to stop. */
  drain(): void;
  /** Lets promises that are ready go on. */
  settle(): Promise<void>;
}

const SLOT = 0;
const GENERATION = 1;
const START_MS = 1_000_000;
const OUTPUT_BYTES = 1 << 20;
const ECONNRESET = 104;

class FakeTransport implements Transport {
  now = START_MS;
  readonly output: Buffer = Buffer.alloc(OUTPUT_BYTES);
  readonly unsent: Int32Array = new Int32Array(1);
  readonly counters: Float64Array = new Float64Array(COUNTER.words).fill(START_MS, COUNTER.receivedAt);
  readonly remote: { host: string; port: number };
  paused = false;
  stalled = false;
  notifyMark = 0;
  /** Set when something was kept back while stalled. */
  blocked = false;
  sent: Buffer[] = [];
  #kept: Buffer[] = [];

  constructor(remote: { host: string; port: number }) {
    this.remote = remote;
  }

  reserve(size: number): number {
    return size > OUTPUT_BYTES ? -1 : 0;
  }

  submit(_slot: number, _generation: number, at: number, size: number): void {
    this.sendLarge(SLOT, GENERATION, this.output.subarray(at, at + size));
  }

  sendLarge(_slot: number, _generation: number, bytes: Uint8Array): void {
    this.unsent[SLOT] = (this.unsent[SLOT] as number) + bytes.length;
    if (this.#kept.length === 0) this.counters[COUNTER.progressAt] = this.now;
    this.#kept.push(Buffer.from(bytes));
    this.flush();
    if (this.stalled) this.blocked = true;
  }

  flush(): void {
    if (this.stalled || this.#kept.length === 0) return;
    this.counters[COUNTER.progressAt] = this.now;
    this.sent.push(...this.#kept.splice(0));
    this.unsent[SLOT] = 0;
  }

  notifyBelow(_slot: number, _generation: number, mark: number): void {
    this.notifyMark = mark;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  close(): void {}

  reset(): void {
    this.#kept = [];
  }

  unread(): number {
    return 0;
  }

  peer(): { host: string; port: number } {
    return this.remote;
  }
}

/** With an engine, whatever waits in the socket comes in the next round; here it comes at once. */
class TestedConnection<State, Out> extends ServedConnection<State, Out> {
  readonly #report: () => void;

  constructor(endpoint: Endpoint, report: () => void) {
    super(endpoint, SLOT, GENERATION);
    this.#report = report;
  }

  override resumeReads(): void {
    super.resumeReads();
    this.#report();
  }
}

/** Opens a connection of `service` without a socket. */
export function testConnection<State, In, Out, Env>(
  service: Service<State, In, Out, Env>,
  options: TestConnectionOptions<Env> = {},
): TestConnection<State, Out> {
  const transport = new FakeTransport({ ...(options.remote ?? { host: "192.0.2.1", port: 40_000 }) });
  const row = new Float64Array(LISTENER_CLOSED + CLOSE_REASONS.length);
  const wheel = new Wheel(transport.now, (_slot, now) => connection.onDue(now));
  const endpoint = new Endpoint({
    listener: "test",
    service,
    env: options.env,
    transport,
    wheel,
    limits: { ...DEFAULT_LIMITS, ...service.limits, ...options.limits },
    timeouts: { ...DEFAULT_TIMEOUTS, ...service.timeouts, ...options.timeouts },
    coalesce: true,
    row,
    log: options.log ?? pino({ level: "silent" }),
    idPrefix: "test",
    poison: true,
  });
  const connection = new TestedConnection<State, Out>(endpoint, () => report());
  connection.onOpen();

  /** Bytes that arrived while reads were paused: the peer's TCP window, in effect. */
  const waiting: Buffer[] = [];
  let ending = false;
  let reporting = false;

  /** What the engine would report in its next round. */
  function report(): void {
    if (reporting) return;
    reporting = true;
    deliver();
    reporting = false;
  }

  function deliver(): void {
    if (transport.blocked) {
      transport.blocked = false;
      connection.onBlocked();
    }
    if ((transport.unsent[SLOT] as number) < transport.notifyMark) {
      transport.notifyMark = 0;
      connection.onWritable();
    }
    while (!transport.paused && !connection.closed && waiting.length > 0) {
      const bytes = waiting.shift() as Buffer;
      transport.counters[COUNTER.received] = (transport.counters[COUNTER.received] as number) + bytes.length;
      transport.counters[COUNTER.receivedAt] = transport.now;
      connection.onData(bytes, 0, bytes.length);
      if (transport.blocked) connection.onBlocked();
      transport.blocked = false;
    }
    // The end stands behind the bytes, as it does in a socket.
    if (ending && !transport.paused && waiting.length === 0) {
      ending = false;
      if (!connection.closed) connection.onEnd();
    }
  }

  return {
    connection,
    get closed() {
      const index = row.indexOf(1, LISTENER_CLOSED);
      return index < 0 ? undefined : CLOSE_REASONS[index - LISTENER_CLOSED];
    },
    get readsPaused() {
      return transport.paused;
    },
    push(bytes) {
      waiting.push(typeof bytes === "string" ? Buffer.from(bytes) : Buffer.from(bytes));
      report();
    },
    end() {
      ending = true;
      report();
    },
    peerReset() {
      connection.onError(ECONNRESET);
    },
    sent() {
      return Buffer.concat(transport.sent.splice(0));
    },
    tick(ms) {
      transport.now += ms;
      wheel.advance(transport.now);
      report();
    },
    stallWrites() {
      transport.stalled = true;
    },
    resumeWrites() {
      transport.stalled = false;
      transport.flush();
      report();
    },
    drain() {
      connection.drain();
    },
    async settle() {
      await new Promise((resolve) => setImmediate(resolve));
      report();
    },
  };
}
