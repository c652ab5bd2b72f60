/**
 * What every limit, timeout and socket option may be. The configuration is read with these kinds and a service's
 * own values are checked with them. Upper bounds are the kernel's, or the engine's: it counts unsent bytes of a
 * connection in 32 bits, and timers hold 2^31 ms.
 */
import {
  type Admission,
  type Deadline,
  type Drain,
  type Limits,
  MAX_WORKERS,
  type Migration,
  ON_LIMIT,
  type ProxyProtocol,
  type ServerLimits,
  type ServerTimeouts,
  type Shed,
  type SocketOptions,
  type Tasks,
  type Timeouts,
  type V8Settings,
} from "../base/settings.ts";
import {
  BOOLEAN,
  type CheckedKind,
  CIDRS,
  choice,
  type Kind,
  type NumericKind,
  numeric,
  SOME_CIDRS,
  V8_FLAGS,
  Wrong,
} from "./kinds.ts";
import { COUNT, DURATION, PERCENT, SIZE } from "./units.ts";

const SECOND = 1_000;
const LONGEST_MS = 576 * 3_600 * SECOND;
const MiB = 1024 ** 2;
const GiB = 1024 ** 3;
const INT_MAX = 2 ** 31 - 1;

/** MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT (Linux, include/net/tcp.h). */
const KEEPALIVE_MS = 32_767 * SECOND;
const KEEPALIVE_COUNT = 127;

/** 65,535 less the headers of IPv4 and UDP. */
const DATAGRAM_BYTES = 65_507;

type NumericKinds<T> = { readonly [Name in keyof T]: NumericKind<T[Name]> };

const deadline: NumericKind<number | "off"> = numeric(DURATION, 1, LONGEST_MS, "off");
const bytes: NumericKind<number> = numeric(SIZE, 1, GiB);

/** Fixed part and unix addresses (PROXY protocol, section 2.2); fixed part and the largest length it can announce. */
const PROXY_HEADER_LEAST = 16 + 216;
const PROXY_HEADER_MOST = 16 + 65_535;

export const LIMIT_KINDS: { readonly [Name in keyof Limits]: CheckedKind<Limits[Name]> } = {
  connections: numeric(COUNT, 1, 1_000_000),
  onLimit: choice(ON_LIMIT),
  connectionsPerAddress: numeric(COUNT, 1, 1_000_000, "off"),
  connectRate: numeric(COUNT, 1, 1_000_000, "off"),
  connectBurst: numeric(COUNT, 1, 1_000_000),
  ipv6Prefix: numeric(COUNT, 1, 128),
  frame: bytes,
  inFlight: numeric(COUNT, 1, 65_536),
  inFlightPerWorker: numeric(COUNT, 1, 1_000_000),
  highWater: bytes,
  lowWater: bytes,
  buffered: bytes,
  minRate: numeric(SIZE, 1, GiB, "off"),
  proxyHeader: numeric(SIZE, PROXY_HEADER_LEAST, PROXY_HEADER_MOST),
  datagram: numeric(SIZE, 1, DATAGRAM_BYTES),
  datagramRate: numeric(COUNT, 1, 10_000_000, "off"),
  datagramBurst: numeric(COUNT, 1, 10_000_000),
  amplification: numeric(COUNT, 1, 1_000, "off"),
};

export const SERVER_LIMIT_KINDS: NumericKinds<ServerLimits> = {
  bufferMemory: numeric(SIZE, 1024 ** 2, 1024 * GiB),
  handshakes: numeric(COUNT, 1, 1_000_000),
};

export const TIMEOUT_KINDS: NumericKinds<Timeouts> = {
  firstByte: deadline,
  frame: deadline,
  idle: deadline,
  writeStall: deadline,
  age: deadline,
  ageJitter: numeric(PERCENT, 1, 100, "off"),
  heartbeat: numeric(DURATION, 100, LONGEST_MS, "off"),
  request: deadline,
  proxyHeader: deadline,
  handshake: deadline,
};

/** Below a second a busy machine would look like a hung worker. */
const LEAST_HANG_MS = SECOND;

export const SERVER_TIMEOUT_KINDS: NumericKinds<ServerTimeouts> = {
  drain: numeric(DURATION, 1, LONGEST_MS),
  hang: numeric(DURATION, LEAST_HANG_MS, LONGEST_MS, "off"),
  prove: numeric(DURATION, 1, 3_600 * SECOND),
};

export const DRAIN_KINDS: NumericKinds<Drain> = { tls: numeric(DURATION, 1, LONGEST_MS) };

export const MIGRATION_KINDS: { readonly [Name in keyof Migration]: Kind<boolean> } = {
  enabled: BOOLEAN,
  rebalance: BOOLEAN,
};

export const ADMISSION_KINDS: { readonly [Name in keyof Admission]: Kind<Admission[Name]> } = {
  allow: CIDRS,
  deny: CIDRS,
};

export const PROXY_PROTOCOL_KINDS: { readonly [Name in keyof ProxyProtocol]: Kind<ProxyProtocol[Name]> } = {
  trust: SOME_CIDRS,
  required: BOOLEAN,
};

const MOST_THREADS = 256;

export const TASK_KINDS: NumericKinds<Tasks> = {
  threads: numeric(COUNT, 1, MOST_THREADS, "auto"),
  queue: numeric(COUNT, 1, 1_000_000),
};

/** Below 16 MiB no worker runs. */
const LEAST_MEMORY = 16 * 1024 ** 2;

export const SHED_KINDS: NumericKinds<Shed> = {
  queueDelay: deadline,
  loopDelay: deadline,
  memory: numeric(SIZE, LEAST_MEMORY, 1024 * GiB, "off"),
};

/** What `definePool` takes beside `TASK_KINDS`. */
export const POOL_KINDS: NumericKinds<{ maxQueueDelay: Deadline; maxRunTime: Deadline }> = {
  maxQueueDelay: deadline,
  maxRunTime: deadline,
};

/** Worker processes as counted out. The configuration may also say `auto`. */
export const WORKER_COUNT_KIND: NumericKind<number> = numeric(COUNT, 1, MAX_WORKERS);
/** A worker's number, as `status` shows it. */
export const WORKER_KIND: NumericKind<number> = numeric(COUNT, 0, MAX_WORKERS - 1);

/** The kernel counts keepalive and defer-accept in seconds: a part of one is rounded up (src/os). */
export const SOCKET_KINDS: { readonly [Name in keyof SocketOptions]: Kind<SocketOptions[Name]> } = {
  noDelay: BOOLEAN,
  keepAlive: numeric(DURATION, SECOND, KEEPALIVE_MS, "off"),
  keepAliveInterval: numeric(DURATION, SECOND, KEEPALIVE_MS),
  keepAliveCount: numeric(COUNT, 1, KEEPALIVE_COUNT),
  userTimeout: deadline,
  deferAccept: numeric(DURATION, SECOND, 3_600 * SECOND, "off"),
  fastOpen: numeric(COUNT, 1, 65_535, "off"),
  notSentLowWater: numeric(SIZE, 1, GiB, "off"),
  receiveBuffer: numeric(SIZE, 1024, GiB, "off"),
  sendBuffer: numeric(SIZE, 1024, GiB, "off"),
  linger: numeric(DURATION, 1, 3_600 * SECOND, "off"),
  ipv6Only: BOOLEAN,
  backlog: numeric(COUNT, 1, INT_MAX),
  coalesce: BOOLEAN,
};

/** V8 counts in MiB: a part of one is rounded up. */
function wholeMebibytes(most: number): NumericKind<number> {
  const size = numeric(SIZE, MiB, most);
  const read = (given: unknown): number | Wrong => {
    const bytes = size.read(given);
    return bytes instanceof Wrong ? bytes : Math.ceil(bytes / MiB) * MiB;
  };
  return { ...size, read };
}

export const V8_KINDS: { readonly [Name in keyof V8Settings]: Kind<V8Settings[Name]> } = {
  semiSpace: wholeMebibytes(1024 * MiB),
  oldSpace: wholeMebibytes(1024 * GiB),
  flags: V8_FLAGS,
};
