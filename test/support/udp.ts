/** UDP for tests: a served listener in the test's own process, clients on node:dgram, and a steady load that counts. */
import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import type { TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { type Logger, pino } from "pino";
import {
  type Admission,
  DEFAULT_ADMISSION,
  DEFAULT_LIMITS,
  DEFAULT_SHED,
  DEFAULT_SOCKET,
  type Limits,
  type SocketOptions,
  type Timeouts,
} from "#src/base/settings.js";
import { addon } from "#src/os/addon.js";
import { AdmissionTable } from "#src/os/admission-table.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { DATAGRAM_FIELDS, type DatagramField, LISTENER_DATAGRAMS, Scoreboard } from "#src/os/scoreboard.js";
import { packSocketOptions } from "#src/os/socket.js";
import type { AnyUdpService } from "#src/service/udp.js";
import { openServer, type WorkerServer } from "#src/worker/server.js";
import { until } from "./until.js";

export interface UdpServingOptions {
  readonly host?: string;
  readonly limits?: Partial<Limits>;
  readonly timeouts?: Partial<Timeouts>;
  readonly socket?: Partial<SocketOptions>;
  readonly admission?: Partial<Admission>;
  readonly log?: Logger;
  /** Do not receive yet. */
  readonly silent?: boolean;
}

export interface UdpServing {
  readonly server: WorkerServer;
  readonly fd: number;
  readonly port: number;
  /** Head of the worker's block. */
  readonly block: ReturnType<Scoreboard["block"]>;
  figures(): Record<DatagramField, number>;
}

export function bindUdp(t: TestContext, host = "127.0.0.1", socket: Partial<SocketOptions> = {}, port = 0): number {
  const options = packSocketOptions({ ...DEFAULT_SOCKET, ...socket });
  const fd = check(addon().udpBind(host, port, port === 0, options), "bind");
  t.after(() => addon().fdClose(fd));
  return fd;
}

export async function openUdpServing(
  t: TestContext,
  service: AnyUdpService,
  options: UdpServingOptions = {},
): Promise<UdpServing> {
  const host = options.host ?? "127.0.0.1";
  const fd = bindUdp(t, host, options.socket);
  const scoreboard = Scoreboard.create();
  const table = AdmissionTable.create();
  t.after(() => {
    for (const each of [scoreboard.fd, table.fd, table.wakeFd]) addon().fdClose(each);
  });
  table.setHighWater(0, 1);
  const { connectionsPerAddress, connectRate, connectBurst, ipv6Prefix } = DEFAULT_LIMITS;
  const block = scoreboard.block(0);
  const server = await openServer({
    listeners: [
      {
        service,
        row: 0,
        config: {
          name: "test",
          address: { protocol: "udp", host, port: 0 },
          addressText: `udp://${host}:0`,
          service: { kind: "module", path: "/test", given: "test" },
          limits: options.limits ?? {},
          timeouts: options.timeouts ?? {},
          socket: { ...DEFAULT_SOCKET, ...options.socket },
          admission: { ...DEFAULT_ADMISSION, ...options.admission },
        },
      },
    ],
    block,
    admission: { table, column: 0 },
    worker: 0,
    idPrefix: "0",
    config: {
      connections: 100,
      clients: { connectionsPerAddress, connectRate, connectBurst, ipv6Prefix },
      admission: DEFAULT_ADMISSION,
    },
    drainMs: 5_000,
    bufferMemory: 256 * 1024 ** 2,
    tasks: { workers: 1, tasks: {}, shed: DEFAULT_SHED },
    log: options.log ?? pino({ level: "silent" }),
  });
  t.after(() => server.abort());
  if (options.silent !== true) server.accept(0, [fd]);
  const row = block.row(0);
  return {
    server,
    fd,
    port: boundPort(fd),
    block,
    figures: () =>
      Object.fromEntries(
        DATAGRAM_FIELDS.map((field, index) => [field, row[LISTENER_DATAGRAMS + index] ?? 0]),
      ) as Record<DatagramField, number>,
  };
}

/** What a client got, and from where. */
export interface Got {
  readonly bytes: Buffer;
  readonly host: string;
  readonly port: number;
}

export class UdpClient {
  readonly socket: Socket;
  readonly got: Got[] = [];
  readonly #to: { readonly port: number; readonly host: string };

  private constructor(socket: Socket, to: { readonly port: number; readonly host: string }) {
    this.socket = socket;
    this.#to = to;
    socket.on("message", (bytes, { address, port }) => this.got.push({ bytes, host: address, port }));
  }

  /** `from`: the address to send from. */
  static async open(t: TestContext, port: number, host = "127.0.0.1", from?: string): Promise<UdpClient> {
    const socket = createSocket({ type: host.includes(":") ? "udp6" : "udp4", recvBufferSize: 4 << 20 });
    socket.bind(0, from);
    await once(socket, "listening");
    let open = true;
    socket.once("close", () => {
      open = false;
    });
    t.after(() => {
      if (open) socket.close();
    });
    return new UdpClient(socket, { port, host });
  }

  get port(): number {
    return this.socket.address().port;
  }

  get texts(): string[] {
    return this.got.map(({ bytes }) => bytes.toString());
  }

  /** Resolves when the kernel has it: over loopback it is in the receiver's queue then. */
  send(bytes: Uint8Array | string): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error: Error | null): void => (error ? reject(error) : resolve());
      this.socket.send(bytes, this.#to.port, this.#to.host, done);
    });
  }

  /** The next answer. */
  async ask(bytes: Uint8Array | string): Promise<Got> {
    const before = this.got.length;
    await this.send(bytes);
    return until("an answer", () => this.got[before]);
  }
}

export interface Steady {
  /** Ends it, waits for late answers, and says what went wrong. */
  stop(): Promise<{ sent: number; lost: number; repeated: number; wrong: number; longestMs: number }>;
  readonly sent: number;
}

interface Flow {
  readonly client: UdpClient;
  readonly prefix: string;
  sent: number;
  readonly sentAt: number[];
}

/** So late an answer is none, ms. */
const PATIENCE_MS = 3_000;

/** `flows` sockets that together send `perSecond` numbered datagrams, evenly spread; each has to come back once. */
export async function steadyLoad(t: TestContext, port: number, flows: number, perSecond: number): Promise<Steady> {
  const all: Flow[] = [];
  for (let index = 0; index < flows; index++) {
    all.push({ client: await UdpClient.open(t, port), prefix: `${index}:`, sent: 0, sentAt: [] });
  }
  const counts = { sent: 0, repeated: 0, wrong: 0, longestMs: 0 };
  for (const flow of all) {
    const seen = new Set<number>();
    flow.client.socket.on("message", (bytes) => {
      const text = bytes.toString();
      const number = Number(text.slice(flow.prefix.length));
      if (!text.startsWith(flow.prefix) || !(number < flow.sent)) counts.wrong += 1;
      else if (seen.has(number)) counts.repeated += 1;
      else counts.longestMs = Math.max(counts.longestMs, performance.now() - (flow.sentAt[number] as number));
      seen.add(number);
    });
  }
  const started = performance.now();
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - started) / 1000) * perSecond);
    while (counts.sent < due) {
      const flow = all[counts.sent++ % all.length] as Flow;
      flow.sentAt.push(performance.now());
      flow.client.socket.send(`${flow.prefix}${flow.sent++}`, port, "127.0.0.1");
    }
  }, 2);
  t.after(() => clearInterval(timer));
  const answered = (): number => all.reduce((sum, { client }) => sum + client.got.length, 0);
  return {
    get sent() {
      return counts.sent;
    },
    async stop() {
      clearInterval(timer);
      for (const from = performance.now(); performance.now() - from < PATIENCE_MS; await pause(20)) {
        if (answered() >= counts.sent) break;
      }
      const lost = counts.sent - (answered() - counts.repeated - counts.wrong);
      return { ...counts, lost };
    },
  };
}

/** Everything sent came back, once, as it was. */
export async function nothingLost(load: Steady, least: number): Promise<void> {
  const { sent, lost, repeated, wrong } = await load.stop();
  assert.deepEqual({ lost, repeated, wrong }, { lost: 0, repeated: 0, wrong: 0 }, `of ${sent}`);
  assert.ok(sent >= least, `only ${sent} were sent`);
}
