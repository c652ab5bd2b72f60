/**
 * The one schema of the configuration: which options exist, what each may be, its default and its description.
 * Files, environment variables and flags are read with it; reference.ts turns it into the documented table and
 * a JSON Schema. It fills nothing in: load.ts applies the defaults after merging.
 *
 * An option that does nothing yet is not listed, and so is refused as unknown.
 */
import { z } from "zod";
import {
  type Admission,
  DEFAULT_ADMISSION,
  DEFAULT_DRAIN,
  DEFAULT_LIMITS,
  DEFAULT_MIGRATION,
  DEFAULT_SERVER_LIMITS,
  DEFAULT_SERVER_TIMEOUTS,
  DEFAULT_SHED,
  DEFAULT_SOCKET,
  DEFAULT_TASKS,
  DEFAULT_TIMEOUTS,
  DEFAULT_TLS,
  type Drain,
  type Limits,
  LOG_LEVELS,
  type LogLevel,
  MAX_WORKERS,
  type Migration,
  type ProxyProtocol,
  type ServerLimits,
  type ServerTimeouts,
  type Shed,
  type SocketOptions,
  type Tasks,
  type Timeouts,
  type TlsDefaults,
} from "../base/settings.ts";
import { ADMIN_ADDRESS, type AdminInput, DEFAULT_PROFILES, HOSTS, TOKEN } from "./admin.ts";
import {
  ADMISSION_KINDS,
  DRAIN_KINDS,
  LIMIT_KINDS,
  MIGRATION_KINDS,
  PROXY_PROTOCOL_KINDS,
  SERVER_LIMIT_KINDS,
  SERVER_TIMEOUT_KINDS,
  SHED_KINDS,
  SOCKET_KINDS,
  TASK_KINDS,
  TIMEOUT_KINDS,
} from "./bounds.ts";
import { BUILTIN_SERVICES } from "./config.ts";
import { ADDRESS, BOOLEAN, choice, type GivenAddress, numeric, service, text } from "./kinds.ts";
import { type Options, option, optional, options, required } from "./option.ts";
import { SERVER_NAMES, TLS_KINDS } from "./tls-kinds.ts";
import { COUNT } from "./units.ts";

/** The groups that listeners share from the top and may override. */
export interface Groups {
  limits: Limits;
  timeouts: Timeouts;
  socket: SocketOptions;
}

export type GroupsInput = { [Name in keyof Groups]?: Partial<Groups[Name]> };

/** Two files that belong together, as given. */
export interface CertificateInput {
  certificate: string;
  key: string;
  names?: readonly string[];
}

export interface TlsInput extends Partial<TlsDefaults> {
  certificate: string;
  key: string;
  certificates?: CertificateInput[];
  ca?: string;
  keyLog?: string;
}

/** One listener as given. */
export interface ListenerInput extends GroupsInput {
  name?: string;
  address: GivenAddress;
  service: string;
  admission?: Partial<Admission>;
  proxyProtocol?: Pick<ProxyProtocol, "trust"> & Partial<ProxyProtocol>;
  tls?: TlsInput;
}

/** A file, the environment or the flags, once read: only what was given, in ms and bytes. */
export interface ConfigInput extends GroupsInput {
  workers?: number | "auto";
  listeners?: ListenerInput[];
  limits?: Partial<Limits & ServerLimits>;
  timeouts?: Partial<Timeouts & ServerTimeouts>;
  drain?: Partial<Drain>;
  migration?: Partial<Migration>;
  admission?: Partial<Admission>;
  tasks?: Partial<Tasks>;
  shed?: Partial<Shed>;
  log?: { level?: LogLevel };
  admin?: AdminInput;
  control?: string;
  pidFile?: string;
}

/** The engine numbers listeners from 0 to 63. */
const MAX_LISTENERS = 64;
export const DEFAULT_PROXY_REQUIRED = true;
export const DEFAULT_LOG_LEVEL: LogLevel = "info";

const limits: Options<Limits> = options(LIMIT_KINDS, DEFAULT_LIMITS, {
  connections:
    "Connections open at once in all workers together. On a listener a further cap, at most that at the top.",
  onLimit:
    "What newcomers get when there is no place for them: RST, FIN, or (`wait`) a place in the kernel's queue until there is one.",
  connectionsPerAddress:
    "Connections open at once from one client address, in all workers and listeners together. A listener with other values here than those at the top counts its clients apart.",
  connectRate: "Connections a second from one client address, in all workers together.",
  connectBurst: "Connections that may come from one address at once before `connectRate` holds it.",
  ipv6Prefix: "Bits of an IPv6 address that make it the same client.",
  frame: "Bytes of one frame's payload, both ways. A longer one closes the connection.",
  inFlight: "Requests in flight on one connection. Past it reads pause.",
  inFlightPerWorker:
    "Requests in flight in one worker, over all its connections. Past it requests are shed: answered `busy`, or closed.",
  highWater: "Unsent bytes at which reads of the same connection pause. At most `buffered`.",
  lowWater: "Unsent bytes at which they resume. Below `highWater`.",
  buffered: "Unsent bytes that a connection may hold. What would exceed them is refused.",
  minRate:
    "Bytes per second: each second's worth that has arrived of a frame gives it a second beyond `timeouts.frame`. `off`: it earns none.",
  proxyHeader: "Bytes of a PROXY header of version 2, where a listener has `proxyProtocol`.",
  datagram:
    "UDP: bytes of one datagram. A longer one is dropped when it arrives and refused when it is to be sent. Above 1,400 or so it travels in fragments, of which none may get lost, where it travels at all.",
  datagramRate: "UDP: datagrams a second from one client address, in all workers together. Those beyond are dropped.",
  datagramBurst: "UDP: datagrams that may come from one address at once before `datagramRate` holds it.",
  amplification:
    "UDP: bytes that may go to a source that is not verified, for each byte that came from it, so that a forged address cannot turn the server against its owner.",
});

const timeouts: Options<Timeouts> = options(TIMEOUT_KINDS, DEFAULT_TIMEOUTS, {
  firstByte: "From accept to the first byte.",
  frame:
    "From the first byte of a frame to its last. A large one earns more time by `limits.minRate`; dribbling does not.",
  idle: "With no byte either way and nothing in flight.",
  writeStall: "With unsent bytes and no progress in sending them.",
  age: "From accept; then the service may say goodbye, what is in flight has `timeouts.drain`, and the connection ends.",
  ageJitter: "By how much `age` may be shorter, drawn for each connection, so that they do not all end at once.",
  heartbeat: "Silence of the peer after which a service that has heartbeats sends a ping, and each next one.",
  request: "From where a request is begun to its reply. What it has in a thread pool's queue is taken out.",
  proxyHeader: "From accept to the end of the PROXY header, where a listener has `proxyProtocol`.",
  handshake: "From the beginning of a TLS handshake to its end.",
});

const socket: Options<SocketOptions> = options(SOCKET_KINDS, DEFAULT_SOCKET, {
  noDelay: "Small replies leave at once (TCP_NODELAY).",
  keepAlive: "Idle time before keepalive probes (TCP_KEEPIDLE), rounded up to whole seconds.",
  keepAliveInterval: "Time between keepalive probes (TCP_KEEPINTVL), rounded up to whole seconds.",
  keepAliveCount: "Unanswered probes before the connection is dropped (TCP_KEEPCNT).",
  userTimeout: "Unacknowledged data is given up after this (TCP_USER_TIMEOUT).",
  deferAccept: "Accept only once data is there, or after this (TCP_DEFER_ACCEPT), rounded up to whole seconds.",
  fastOpen: "Length of the TCP Fast Open queue (TCP_FASTOPEN).",
  notSentLowWater: "Unsent bytes the kernel holds before the socket stops being writable (TCP_NOTSENT_LOWAT).",
  receiveBuffer: "Receive buffer (SO_RCVBUF). `off` leaves it to the kernel's autotuning.",
  sendBuffer: "Send buffer (SO_SNDBUF). `off` leaves it to the kernel's autotuning.",
  linger:
    "How long a closing connection waits for the peer to take everything and close; then it is reset (what SO_LINGER means, without blocking). `off`: 1 s, then the kernel goes on alone.",
  ipv6Only: "An IPv6 listener takes no IPv4 clients (IPV6_V6ONLY).",
  backlog: "Length of the accept queue. The kernel clamps it to net.core.somaxconn.",
  coalesce: "Replies made in one round leave in one send. `false` sends each by itself (for comparison).",
});

/** A group of options. `null`, which is what YAML makes of an empty one, never gets here (document.ts). */
function group<S extends z.ZodRawShape>(shape: S, description: string): z.ZodObject<S, z.core.$strict> {
  return z.strictObject(shape).meta({ description });
}

const NAME = text("name", /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'up to 63 letters, digits, ".", "_" and "-"');
const PATH = text("path", /^\P{Cc}+$/u, "a path (/run/headrace/control.sock)");

const admission: Options<Admission> = options(ADMISSION_KINDS, DEFAULT_ADMISSION, {
  allow: "Only these client addresses may come, unless there are none here.",
  deny: "These client addresses may not come, even if they are in `allow`.",
});

const proxyProtocol = {
  trust: required(
    PROXY_PROTOCOL_KINDS.trust,
    "Networks of the proxies, whose headers are believed. A header from elsewhere closes the connection.",
  ),
  required: option(
    PROXY_PROTOCOL_KINDS.required,
    DEFAULT_PROXY_REQUIRED,
    "Every connection has to begin with a header, so only proxies may connect. `false`: one without a header is its sender's own.",
  ),
};
const CERTIFICATE = "PEM file: the certificate, then the intermediate ones. Followed through links, and watched.";
const KEY = "PEM file: the private key, not encrypted. Only the server's user should be able to read it.";
/** One handshake looks through all of them. */
const MAX_CERTIFICATES = 100;

const certificate = group(
  {
    certificate: required(PATH, CERTIFICATE),
    key: required(PATH, KEY),
    names: optional(SERVER_NAMES, "Server names (SNI) that get it. Else those in the certificate."),
  },
  "A further certificate.",
);

const { clientCertificate, alpn, minVersion, ciphers }: Options<TlsDefaults> = options(TLS_KINDS, DEFAULT_TLS, {
  clientCertificate: "Whether clients are asked for a certificate, and must have one. Needs `ca`.",
  alpn: "Application protocols, the preferred first. A client that names others only is refused.",
  minVersion: "The oldest version that is spoken.",
  ciphers:
    "Cipher suites that clients may choose, those of TLS 1.3 too. Of a version that none is named of, the default ones.",
});

const tls = group(
  {
    certificate: required(PATH, CERTIFICATE),
    key: required(PATH, KEY),
    certificates: z
      .array(certificate)
      .max(MAX_CERTIFICATES)
      .meta({
        description: "Certificates for other server names. The first that is for a name is taken.",
        allowed: `up to ${MAX_CERTIFICATES} certificates`,
      })
      .exactOptional(),
    ca: optional(PATH, "PEM file: who must have signed the certificates of clients."),
    clientCertificate,
    alpn,
    minVersion,
    ciphers,
    keyLog: optional(PATH, "File that gets the secrets of all sessions, for debugging. Whoever reads it reads them."),
  },
  "TLS on this listener.",
);

const listener = group(
  {
    name: optional(NAME, "Name in logs and metrics, unique. Else made from the service: echo-line, then echo-line-2."),
    address: required(ADDRESS, "Where to listen. No two listeners may overlap."),
    service: required(service(BUILTIN_SERVICES), "What to run. A relative path starts at the file's folder."),
    limits: group(limits, "`limits` of this listener, over those at the top (without the last two).").exactOptional(),
    timeouts: group(
      timeouts,
      "`timeouts` of this listener, over those at the top (without the last three).",
    ).exactOptional(),
    socket: group(socket, "`socket` of this listener, over that at the top.").exactOptional(),
    admission: group(admission, "Asked besides `admission` at the top: who comes has to pass both.").exactOptional(),
    proxyProtocol: group(
      proxyProtocol,
      "A load balancer stands in front and says in a PROXY header (version 1 or 2) who its client is.",
    ).exactOptional(),
    tls: tls.exactOptional(),
  },
  "One address and the service behind it.",
);

const serverLimits: Options<ServerLimits> = options(SERVER_LIMIT_KINDS, DEFAULT_SERVER_LIMITS, {
  bufferMemory:
    "Bytes that all connections of one worker may hold, received and unsent. Above three quarters of it reads of the largest holders pause, past it they are closed.",
  handshakes:
    "TLS handshakes in progress in one worker. Past it the oldest makes room once it has had a fifth of its time; else newcomers are reset.",
});

const drain: Options<Drain> = options(DRAIN_KINDS, DEFAULT_DRAIN, {
  tls: "Over this time a worker that is replaced says goodbye to its TLS connections, which cannot move.",
});

const serverTimeouts: Options<ServerTimeouts> = options(SERVER_TIMEOUT_KINDS, DEFAULT_SERVER_TIMEOUTS, {
  drain: "How long a stopping server, or a worker that is replaced, waits for what is in flight.",
  hang: "A worker whose event loop stands still for this long is killed and replaced.",
  prove: "How long both generations of an upgrade serve before the old one leaves.",
});

const migration: Options<Migration> = options(MIGRATION_KINDS, DEFAULT_MIGRATION, {
  enabled: "Established connections move to the successor of their worker. `false`: they are drained.",
  rebalance: "A new worker receives a fair share of the long connections.",
});

const tasks: Options<Tasks> = options(TASK_KINDS, DEFAULT_TASKS, {
  threads: "Threads of each thread pool in one worker. `auto`: the CPUs divided by the workers, at least 1.",
  queue: "Tasks that may wait in one pool of one worker. One more is refused (`ServerBusy`).",
});

const shed: Options<Shed> = options(SHED_KINDS, DEFAULT_SHED, {
  queueDelay:
    "A pool whose tasks all waited longer for 100 ms is overloaded: then no task waits longer (nor fewer than four of its kind).",
  loopDelay: "An event loop that is typically so late sheds part of the requests, more of them while it lasts.",
  memory: "A worker whose resident memory is over this sheds part of the requests.",
});

const level = option(choice(LOG_LEVELS), DEFAULT_LOG_LEVEL, "The least severe level that is logged.");

const admin = {
  address: option(
    ADMIN_ADDRESS,
    "off",
    "Where to listen. Beyond loopback only with a token of your own. With no configuration at all: 127.0.0.1:9900.",
  ),
  token: optional(
    TOKEN,
    "Who has it may see and do everything here. Else one is generated into a file that only the server's user can read.",
  ),
  hosts: option(HOSTS, [], "Names by which clients may call it, beside addresses and localhost (the Host header)."),
  profiles: option(BOOLEAN, DEFAULT_PROFILES, "CPU profiles and heap snapshots may be asked for over it."),
};

const root = group(
  {
    workers: option(
      numeric(COUNT, 1, MAX_WORKERS, "auto"),
      "auto",
      "Worker processes. `auto`: one for each CPU that this process may use.",
    ),
    listeners: z
      .array(listener)
      .min(1)
      .max(MAX_LISTENERS)
      .meta({
        description: "Addresses and their services. Without any: `echo-line` on 127.0.0.1:9000, `echo-frame` on :9001.",
        allowed: `1 to ${MAX_LISTENERS} listeners`,
      })
      .exactOptional(),
    limits: group({ ...limits, ...serverLimits }, "How much a connection, and all of them, may use.").exactOptional(),
    timeouts: group({ ...timeouts, ...serverTimeouts }, "How long things may take.").exactOptional(),
    socket: group(socket, "Options of the listening sockets and of the connections they accept.").exactOptional(),
    drain: group(
      drain,
      "How connections leave a worker that is replaced and that they cannot move from.",
    ).exactOptional(),
    migration: group(migration, "What becomes of connections when their worker is replaced.").exactOptional(),
    admission: group(admission, "Which client addresses may come, to any listener.").exactOptional(),
    tasks: group(tasks, "Thread pools, where services have any.").exactOptional(),
    shed: group(shed, "When a worker is overloaded and refuses requests, those of low priority first.").exactOptional(),
    log: group({ level }, "What is logged.").exactOptional(),
    admin: group(admin, "The admin server: HTTP, for people on call, scrapers and health checks.").exactOptional(),
    control: optional(PATH, "Path of the control socket. Else it is in the runtime directory."),
    pidFile: optional(PATH, "File that holds the primary's process id while it serves. Else there is none."),
  },
  "Configuration of headrace.",
);

/** For walking; use `readInput` to read with it. */
export const configSchema: z.ZodObject = root;

/** Reads `data`, or returns every issue zod found. */
export function readInput(data: unknown): ConfigInput | z.core.$ZodIssue[] {
  const result = root.safeParse(data, { reportInput: true });
  return result.success ? result.data : result.error.issues;
}
