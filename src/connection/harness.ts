/**
 * testConnection: a service's whole path (codec, handler, replies, deadlines, backpressure) without a socket and
 * with a clock that the test moves. Borrowed frames are always overwritten after the handler.
 */
import { pino } from "pino";
import type { Logger } from "../base/log.ts";
import { CLOSE_REASONS, type CloseReason } from "../base/reasons.ts";
import {
  DEFAULT_LIMITS,
  DEFAULT_SERVER_LIMITS,
  DEFAULT_SERVER_TIMEOUTS,
  DEFAULT_TIMEOUTS,
  type Limits,
  type ServerLimits,
  type Timeouts,
} from "../base/settings.ts";
import type { ProxyInfo } from "../codec/proxy-header.ts";
import { COUNTER } from "../engine/layout.ts";
import { LISTENER_CLOSED, LISTENER_DATAGRAMS, ROW_CELLS, WORKER_FIELDS } from "../os/scoreboard.ts";
import type { Connection, ConnectionTls } from "../service/connection.ts";
import type { Service } from "../service/define.ts";
import { ALARM_TICK_MS } from "./alarm.ts";
import { BufferMemory } from "./buffer-memory.ts";
import { ServedConnection } from "./connection.ts";
import { Endpoint } from "./endpoint.ts";
import { FakeTransport, GENERATION, SLOT } from "./fake-transport.ts";
import { Gate } from "./gate.ts";
import type { MovedConnection } from "./moved.ts";
import { Timing } from "./timing.ts";
import { Topics } from "./topics.ts";
import { Wheel } from "./wheel.ts";

export interface TestConnectionOptions<Env> {
  /** What the service's `env` would have made. */
  readonly env?: Env;
  /** Over the service's own and the defaults; bytes and counts. */
  readonly limits?: Partial<Limits & ServerLimits>;
  /** Over the service's own and the defaults; ms or "off". */
  readonly timeouts?: Partial<Timeouts>;
  readonly remote?: { readonly host: string; readonly port: number };
  /**
   * What stands before a service is not part of the test: no PROXY header is read from what is pushed. These say what
   * one would have brought; `remote` is the client that it names.
   */
  readonly proxy?: ProxyInfo;
  /** What TLS would have said. Such a connection does not move. */
  readonly tls?: ConnectionTls;
  readonly peer?: { readonly host: string; readonly port: number };
  readonly log?: Logger;
}

export interface TestConnection<State, Out, Env = unknown> {
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
  /** Somebody publishes to a topic, in whatever worker. */
  publish(topic: string, message: Out): void;
  /**
   * Moves it to another worker, whose `env` is given or the same, and returns it there: `suspend` and `resume` are
   * called as in a reload, and this one is closed. Throws what they throw, and when it cannot move: a request is in
   * flight, it is closed, `suspend` declined.
   */
  moved(to?: MoveOptions<Env>): TestConnection<State, Out, Env>;
  /** Lets promises that are ready go on. */
  settle(): Promise<void>;
}

interface MoveOptions<Env> {
  /** What the service's `env` has made in the other worker. */
  readonly env?: Env;
  /** `stateVersion` of the worker it leaves. Default: that of the service. */
  readonly stateVersion?: number;
}

const ECONNRESET = 104;

/** With an engine, whatever waits in the socket comes in the next round; here it comes at once. */
class TestedConnection<State, Out> extends ServedConnection<State, Out> {
  readonly #report: () => void;

  constructor(endpoint: Endpoint, report: () => void, id?: string) {
    super(endpoint, SLOT, GENERATION, id);
    this.#report = report;
  }

  override resumeReads(): void {
    super.resumeReads();
    this.#report();
  }
}

/** What the peer has done that the connection has not seen yet. */
interface Pending {
  /** Bytes that arrived while reads were paused: the peer's TCP window, in effect. */
  readonly bytes: Buffer[];
  ending: boolean;
}

/** A connection that comes from another harness. */
interface Origin {
  readonly moved: MovedConnection;
  readonly stateVersion: number;
  readonly transport: FakeTransport;
  readonly pending: Pending;
}

/** Opens a connection of `service` without a socket. */
export function testConnection<State, In, Out, Env>(
  service: Service<State, In, Out, Env>,
  options: TestConnectionOptions<Env> = {},
): TestConnection<State, Out, Env> {
  return open(service, options);
}

function open<State, In, Out, Env>(
  service: Service<State, In, Out, Env>,
  options: TestConnectionOptions<Env>,
  origin?: Origin,
): TestConnection<State, Out, Env> {
  const remote = { ...(options.remote ?? { host: "192.0.2.1", port: 40_000 }) };
  const transport = origin?.transport.next() ?? new FakeTransport(remote);
  const pending: Pending = origin?.pending ?? { bytes: [], ending: false };
  const row = new Float64Array(ROW_CELLS);
  const wheel = new Wheel(transport.now, (_slot, now) => connection.onDue(now));
  const alarm = new Wheel(transport.now, (_slot, now) => connection.onAlarm(now), ALARM_TICK_MS);
  const log = options.log ?? pino({ level: "silent" });
  const head = new Float64Array(WORKER_FIELDS.length);
  const memory = new BufferMemory({
    transport,
    budget: options.limits?.bufferMemory ?? DEFAULT_SERVER_LIMITS.bufferMemory,
    head,
    log,
    holders: () => [connection],
  });
  const topics = new Topics({ flush() {}, hold: (bytes) => memory.add(bytes), head, log });
  const endpoint = new Endpoint({
    listener: "test",
    key: "test",
    index: 0,
    service,
    env: options.env,
    transport,
    wheel,
    alarm,
    memory,
    topics,
    timing: new Timing(transport.laps),
    limits: { ...DEFAULT_LIMITS, ...service.limits, ...options.limits },
    timeouts: { ...DEFAULT_TIMEOUTS, ...service.timeouts, ...options.timeouts },
    drainMs: DEFAULT_SERVER_TIMEOUTS.drain,
    coalesce: true,
    row,
    gate: new Gate(),
    log,
    idPrefix: "test",
    poison: true,
  });
  const connection = new TestedConnection<State, Out>(endpoint, () => report(), origin?.moved.id);
  let reporting = false;
  if (origin) {
    connection.arrive(origin.moved, origin.stateVersion);
    // Now the other worker would be told; what came meanwhile is heard after that.
    connection.begin();
  } else {
    const { peer, proxy, tls } = options;
    const origin = { ...(peer ? { peer } : {}), ...(proxy ? { proxy } : {}), ...(tls ? { tls } : {}) };
    if (peer || proxy || tls) connection.comesFrom(origin);
    connection.onOpen();
  }

  /** What the engine would report in its next round. */
  function report(): void {
    if (reporting) return;
    reporting = true;
    deliver();
    reporting = false;
    memory.review();
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
    while (!transport.paused && !connection.closed && pending.bytes.length > 0) {
      const bytes = pending.bytes.shift() as Buffer;
      transport.counters[COUNTER.received] = (transport.counters[COUNTER.received] as number) + bytes.length;
      transport.counters[COUNTER.receivedAt] = transport.now;
      connection.onData(bytes, 0, bytes.length);
      if (transport.blocked) connection.onBlocked();
      transport.blocked = false;
    }
    // The end stands behind the bytes, as it does in a socket.
    if (pending.ending && !transport.paused && pending.bytes.length === 0) {
      pending.ending = false;
      if (!connection.closed) connection.onEnd();
    }
  }

  function moved(to: MoveOptions<Env> = {}): TestConnection<State, Out, Env> {
    const taken = suspended(connection);
    const stateVersion = to.stateVersion ?? service.stateVersion;
    const there = "env" in to ? { ...options, env: to.env as Env } : options;
    try {
      const arrived = open(service, there, { moved: taken, stateVersion, transport, pending });
      connection.gone(taken);
      return arrived;
    } catch (error) {
      connection.takeBack(taken);
      throw error;
    }
  }

  return {
    connection,
    get closed() {
      const index = row.subarray(LISTENER_CLOSED, LISTENER_DATAGRAMS).indexOf(1);
      return index < 0 ? undefined : CLOSE_REASONS[index];
    },
    get readsPaused() {
      return transport.paused;
    },
    push(bytes) {
      if (connection.closed) return;
      pending.bytes.push(typeof bytes === "string" ? Buffer.from(bytes) : Buffer.from(bytes));
      report();
    },
    end() {
      if (connection.closed) return;
      pending.ending = true;
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
      alarm.advance(transport.now);
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
    publish(topic, message) {
      endpoint.publish(topic, message);
      report();
    },
    moved,
    async settle() {
      await new Promise((resolve) => setImmediate(resolve));
      report();
    },
  };
}

/** Here a failure is the test's to see; a worker logs it and keeps the connection. */
function suspended<State, Out>(connection: ServedConnection<State, Out>): MovedConnection {
  if (!connection.leave(() => {}))
    throw new Error("testConnection: a connection that is closed or drains does not move");
  if (connection.standing === "busy") {
    connection.stay();
    throw new Error("testConnection: it does not move while a request is in flight or drained() is awaited");
  }
  let failure: unknown = new Error("testConnection: suspend returned undefined: the connection stays");
  const moved = connection.suspend((error) => {
    failure = error;
  });
  if (!moved) throw failure;
  return moved;
}
