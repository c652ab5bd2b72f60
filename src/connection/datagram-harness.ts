/**
 * testDatagrams: a UDP service's whole path (handler, replies, the guard against amplification, deadlines) without a
 * socket and with a clock that the test moves. Borrowed messages are always overwritten after the handler, and a `from`
 * that is kept too long always throws.
 */
import { pino } from "pino";
import type { Logger } from "../base/log.ts";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS, type Limits, type Timeouts } from "../base/settings.ts";
import { endWords } from "../engine/datagram-end.ts";
import { Laps } from "../engine/laps.ts";
import { DATAGRAM_FIELDS, type DatagramField, LISTENER_DATAGRAMS, ROW_CELLS } from "../os/scoreboard.ts";
import type { UdpService, UdpSocket } from "../service/udp.ts";
import { EarlySocket } from "./datagram-socket.ts";
import { DatagramEndpoint } from "./datagrams.ts";
import { FakeDatagrams, type Sent } from "./fake-datagrams.ts";
import { Gate } from "./gate.ts";
import { Timing } from "./timing.ts";

export interface TestDatagramsOptions<Env> {
  /** What the service's `env` would have made. */
  readonly env?: (socket: UdpSocket) => Env;
  /** Over the service's own and the defaults; bytes and counts. */
  readonly limits?: Partial<Limits>;
  /** Over the service's own and the defaults; ms or "off". */
  readonly timeouts?: Partial<Timeouts>;
  readonly log?: Logger;
}

/** A datagram that was sent. */
export type TestDatagram = Sent;

export interface TestDatagrams {
  readonly socket: UdpSocket;
  /** What `headrace status` would count. */
  readonly figures: Readonly<Record<DatagramField, number>>;
  /** Handlers whose promise is not settled. */
  readonly inFlight: number;
  /** A datagram arrives (text as UTF-8), from 192.0.2.1 port 40000 unless said otherwise. */
  receive(bytes: Uint8Array | string, from?: { readonly host: string; readonly port: number }): void;
  /** What was sent since the last call. */
  sent(): TestDatagram[];
  /** Moves the clock; `timeouts.request` takes effect. */
  tick(ms: number): void;
  /** The worker sends no more. */
  stop(): void;
  /** Lets promises that are ready go on. */
  settle(): Promise<void>;
}

const FROM = { host: "192.0.2.1", port: 40_000 };
const LISTENER = 0;
const START_MS = 1_000_000;

/** Serves `service` without a socket. */
export function testDatagrams<Env>(service: UdpService<Env>, options: TestDatagramsOptions<Env> = {}): TestDatagrams {
  const limits = { ...DEFAULT_LIMITS, ...service.limits, ...options.limits };
  const row = new Float64Array(ROW_CELLS);
  const socket = new EarlySocket(LISTENER);
  let now = START_MS;
  const transport = new FakeDatagrams(limits.amplification === "off" ? 0 : limits.amplification, () => now);
  const count = (field: DatagramField): void => {
    const cell = LISTENER_DATAGRAMS + DATAGRAM_FIELDS.indexOf(field);
    row[cell] = (row[cell] as number) + 1;
  };
  const endpoint = new DatagramEndpoint({
    listener: "test",
    index: LISTENER,
    service,
    env: options.env?.(socket),
    transport,
    now: () => now,
    limits,
    timeouts: { ...DEFAULT_TIMEOUTS, ...service.timeouts, ...options.timeouts },
    row,
    timing: new Timing(new Laps(() => now)),
    gate: new Gate(),
    log: options.log ?? pino({ level: "silent" }),
    poison: true,
  });
  socket.attach(endpoint);
  return {
    socket,
    get figures() {
      const counts = DATAGRAM_FIELDS.map((field, index) => [field, row[LISTENER_DATAGRAMS + index]]);
      return Object.fromEntries(counts) as Record<DatagramField, number>;
    },
    get inFlight() {
      return endpoint.inFlight;
    },
    receive(bytes, { host, port } = FROM) {
      const given = Buffer.from(bytes as Uint8Array);
      if (given.length > limits.datagram) {
        count("truncated");
        return;
      }
      count("received");
      endpoint.onDatagram(transport.arrive(endWords(host, port, LISTENER), given), given.length);
    },
    sent() {
      const sent = transport.sent.splice(0);
      for (const _ of sent) count("sent");
      return sent;
    },
    tick(ms) {
      now += ms;
      endpoint.tick(now);
    },
    stop() {
      transport.serving = false;
    },
    async settle() {
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}
