/** openServer in the test's own process: one worker or several, one listener, real sockets, real figures. */
import type { TestContext } from "node:test";
import { type Logger, pino } from "pino";
import { CLOSE_REASONS, type CloseReason } from "#src/base/reasons.js";
import {
  DEFAULT_ADMISSION,
  DEFAULT_LIMITS,
  DEFAULT_SHED,
  DEFAULT_SOCKET,
  DEFAULT_TLS,
  type Limits,
  type ProxyProtocol,
  type Shed,
  type SocketOptions,
  type Tasks,
  type Timeouts,
} from "#src/base/settings.js";
import type { CertificateMaterial } from "#src/base/tls-material.js";
import { listenerKey } from "#src/config/listener-key.js";
import { addon } from "#src/os/addon.js";
import { AdmissionTable } from "#src/os/admission-table.js";
import { boundPort } from "#src/os/descriptors.js";
import { LISTENER_CLOSED, LISTENER_FIELDS, type ListenerField, Scoreboard } from "#src/os/scoreboard.js";
import { TicketKeys } from "#src/os/ticket-keys.js";
import type { AnyService } from "#src/service/define.js";
import type { ServerAdmission } from "#src/worker/admission.js";
import { openServer, type ServedListener, type ServerOptions, type WorkerServer } from "#src/worker/server.js";
import { openListener } from "./loopback.js";

export interface ServingOptions {
  readonly limits?: Partial<Limits>;
  readonly timeouts?: Partial<Timeouts>;
  readonly socket?: Partial<SocketOptions>;
  /** Connections in all. */
  readonly connections?: number;
  /** `limits.bufferMemory`. */
  readonly bufferMemory?: number;
  /** `timeouts.drain`. */
  readonly drainMs?: number;
  readonly tasks?: Partial<Tasks>;
  readonly shed?: Partial<Shed>;
  readonly proxyProtocol?: ProxyProtocol;
  /** The listener has TLS, with this certificate. */
  readonly tls?: CertificateMaterial;
  /** `limits.handshakes`. */
  readonly handshakes?: number;
  readonly log?: Logger;
  /** Another worker to stand beside: with the same scoreboard and admission table. */
  readonly beside?: Serving;
}

export interface Serving {
  readonly server: WorkerServer;
  readonly scoreboard: Scoreboard;
  readonly admission: AdmissionTable;
  /** Seats that are taken, of all that stand side by side. */
  readonly seats: { taken: number };
  readonly port: number;
  figure(field: ListenerField): number;
  /** Closes so far, by reason, those that are not 0. */
  closes(): Partial<Record<CloseReason, number>>;
}

export function listenerOf(service: AnyService, options: ServingOptions): ServedListener {
  return {
    service,
    row: 0,
    config: {
      name: "test",
      address: { protocol: "tcp", host: "127.0.0.1", port: 0 },
      addressText: "127.0.0.1:0",
      service: { kind: "module", path: "/test", given: "test" },
      limits: options.limits ?? {},
      timeouts: options.timeouts ?? {},
      socket: { ...DEFAULT_SOCKET, ...options.socket },
      admission: DEFAULT_ADMISSION,
      ...(options.proxyProtocol ? { proxyProtocol: options.proxyProtocol } : {}),
      ...(options.tls ? { tls: { ...DEFAULT_TLS, certificates: [] } } : {}),
    },
  };
}

function serverOf({ connections = 1_000, limits }: ServingOptions): ServerAdmission {
  const { connectionsPerAddress, connectRate, connectBurst, ipv6Prefix } = { ...DEFAULT_LIMITS, ...limits };
  const clients = { connectionsPerAddress, connectRate, connectBurst, ipv6Prefix };
  return { connections, clients, admission: DEFAULT_ADMISSION };
}

function openTables(t: TestContext): Pick<Serving, "scoreboard" | "admission" | "seats"> {
  const scoreboard = Scoreboard.create();
  const admission = AdmissionTable.create();
  t.after(() => {
    addon().fdClose(scoreboard.fd);
    addon().fdClose(admission.fd);
    addon().fdClose(admission.wakeFd);
  });
  return { scoreboard, admission, seats: { taken: 0 } };
}

/** What TLS needs: keys of its own, and the certificate. */
function openTls(
  t: TestContext,
  listener: ServedListener,
  { tls, handshakes = 1_000 }: ServingOptions,
): Pick<ServerOptions, "tls"> {
  if (!tls) return {};
  const { fd } = TicketKeys.create(Date.now());
  t.after(() => addon().fdClose(fd));
  const secrets = { [listenerKey(listener.config)]: { certificates: [tls] } };
  return { tls: { handshakes, tickets: fd, secrets } };
}

export async function openServing(t: TestContext, service: AnyService, options: ServingOptions = {}): Promise<Serving> {
  const fd = openListener(t, options.socket);
  const { scoreboard, admission, seats } = options.beside ?? openTables(t);
  const seat = seats.taken++;
  admission.setHighWater(0, seats.taken);
  const listener = listenerOf(service, options);
  const server = await openServer({
    listeners: [listener],
    ...openTls(t, listener, options),
    block: scoreboard.block(seat),
    admission: { table: admission, column: seat },
    worker: seat,
    idPrefix: String(seat),
    config: serverOf(options),
    drainMs: options.drainMs ?? 30_000,
    bufferMemory: options.bufferMemory ?? 256 * 1024 ** 2,
    tasks: { workers: 1, tasks: options.tasks ?? {}, shed: { ...DEFAULT_SHED, ...options.shed } },
    log: options.log ?? pino({ level: "silent" }),
  });
  t.after(() => server.abort());
  server.accept(seat, [fd]);
  const row = scoreboard.block(seat).row(0);
  return {
    server,
    scoreboard,
    admission,
    seats,
    port: boundPort(fd),
    figure: (field) => row[LISTENER_FIELDS.indexOf(field)] as number,
    closes: () =>
      Object.fromEntries(
        CLOSE_REASONS.map((reason, index) => [reason, row[LISTENER_CLOSED + index] as number] as const).filter(
          ([, count]) => count !== 0,
        ),
      ),
  };
}

export function closesTotal(serving: Serving): number {
  return Object.values(serving.closes()).reduce((sum, count) => sum + count, 0);
}
