/**
 * Limits, timeouts and socket options: the shapes that a service declares, the configuration fills in and a
 * connection obeys, with every default and unit in one place. 0 is never "off": `off` is spelled out.
 */

/** Milliseconds, or no deadline at all. */
export type Deadline = number | "off";

/** What becomes of newcomers for whom there is no place. `wait`: they queue in the kernel until there is. */
export const ON_LIMIT = ["reset", "close", "wait"] as const;
export type OnLimit = (typeof ON_LIMIT)[number];

export interface Limits {
  /** Connections open at once. On the server: in all workers together. On a listener: a further cap. */
  connections: number;
  /** At `connections`: newcomers get RST, or FIN, or wait in the kernel's queue. */
  onLimit: OnLimit;
  /** Connections open at once from one client address, in all workers together. */
  connectionsPerAddress: number | "off";
  /** Connections a second from one client address, in all workers together. */
  connectRate: number | "off";
  /** Connections that may come from one address at once, before `connectRate` holds it. */
  connectBurst: number;
  /** Bits of an IPv6 address that make it the same client. */
  ipv6Prefix: number;
  /** Bytes of one frame's payload, both ways. */
  frame: number;
  /** Requests in flight on one connection (`ordered` and `unordered` services). Past it reads pause. */
  inFlight: number;
  /** Requests in flight in one worker, over all its connections: past it requests of this listener are shed. */
  inFlightPerWorker: number;
  /** Unsent bytes at which reads of the same connection pause and `send()` says `slow`. */
  highWater: number;
  /** Unsent bytes at which they resume and `onWritable` is called. */
  lowWater: number;
  /** Unsent bytes that a connection may hold: `send()` past it says `refused`. */
  buffered: number;
  /** Bytes per second with which an unfinished frame earns time beyond `timeouts.frame`. `off`: it earns none. */
  minRate: number | "off";
  /** Bytes of a PROXY header of version 2. */
  proxyHeader: number;
  /** Bytes of one datagram, both ways. */
  datagram: number;
  /** Datagrams a second from one client address, in all workers together. */
  datagramRate: number | "off";
  /** Datagrams that may come from one address at once, before `datagramRate` holds it. */
  datagramBurst: number;
  /** Bytes that may go to a source that is not verified, for each byte that came from it. */
  amplification: number | "off";
}

/** Limits of the server itself: they stand among the others, at the top only. */
export interface ServerLimits {
  /** Bytes that all connections of one worker may hold together, received and unsent. */
  bufferMemory: number;
  /** TLS handshakes in progress in one worker: past it the oldest makes room, or newcomers are reset. */
  handshakes: number;
}

export interface Timeouts {
  /** From accept to the first byte. */
  firstByte: Deadline;
  /** From the first byte of a frame to its last, beside the time it earns (`limits.minRate`). */
  frame: Deadline;
  /** With no byte either way and nothing in flight. */
  idle: Deadline;
  /** With unsent bytes and no progress in sending them. */
  writeStall: Deadline;
  /** From accept; then the connection is drained. */
  age: Deadline;
  /** Per cent of `age` by which it may be shorter, drawn for each connection. */
  ageJitter: number | "off";
  /** Silence of the peer after which a service that has heartbeats sends a ping, and then the next one. */
  heartbeat: Deadline;
  /** From where a request is begun to its reply. */
  request: Deadline;
  /** From accept to the end of the PROXY header, where there is to be one. */
  proxyHeader: Deadline;
  /** From the beginning of a TLS handshake to its end. */
  handshake: Deadline;
}

/** How V8 runs in each worker. What is not set is V8's own choice. */
export interface V8Settings {
  /** Of one half of the young generation at most, bytes: whole MiB. */
  semiSpace: number;
  /** Of the old generation at most, bytes: whole MiB. */
  oldSpace: number;
  /** Further flags of V8's, each as on a command line. */
  flags: readonly string[];
}

export interface SocketOptions {
  /** TCP_NODELAY. */
  noDelay: boolean;
  /** Idle time before keepalive probes (SO_KEEPALIVE, TCP_KEEPIDLE), ms. */
  keepAlive: Deadline;
  /** Between probes (TCP_KEEPINTVL), ms. */
  keepAliveInterval: number;
  /** Unanswered probes before the connection is dropped (TCP_KEEPCNT). */
  keepAliveCount: number;
  /** Unacknowledged data is given up after this (TCP_USER_TIMEOUT), ms. */
  userTimeout: Deadline;
  /** Accept only once data is there, or after this (TCP_DEFER_ACCEPT), ms. */
  deferAccept: Deadline;
  /** Length of the TCP Fast Open queue (TCP_FASTOPEN). */
  fastOpen: number | "off";
  /** Unsent bytes the kernel holds before the socket stops being writable (TCP_NOTSENT_LOWAT). */
  notSentLowWater: number | "off";
  /** SO_RCVBUF, bytes: `off` leaves it to the kernel's autotuning. */
  receiveBuffer: number | "off";
  /** SO_SNDBUF, bytes: `off` leaves it to the kernel's autotuning. */
  sendBuffer: number | "off";
  /**
   * How long a closing connection waits for the peer to have taken everything and closed too, ms; then it is reset.
   * What SO_LINGER means, but the engine waits, because a lingering close() would block all connections. `off`:
   * wait 1 s, then leave the rest to the kernel, as without SO_LINGER.
   */
  linger: Deadline;
  /** IPV6_V6ONLY: an IPv6 listener takes no IPv4 clients. */
  ipv6Only: boolean;
  /** Length of the accept queue; the kernel clamps it to net.core.somaxconn. */
  backlog: number;
  /** Replies made in one round leave in one `send`. `false` sends each by itself (for comparison). */
  coalesce: boolean;
}

const KiB = 1024;
const MiB = 1024 * KiB;

export const DEFAULT_LIMITS: Readonly<Limits> = {
  connections: 10_000,
  onLimit: "reset",
  connectionsPerAddress: "off",
  connectRate: "off",
  connectBurst: 100,
  ipv6Prefix: 64,
  frame: MiB,
  inFlight: 64,
  inFlightPerWorker: 10_000,
  highWater: 64 * KiB,
  lowWater: 32 * KiB,
  buffered: 8 * MiB,
  minRate: 16 * KiB,
  proxyHeader: 4 * KiB,
  // What gets through nearly everywhere in one piece: 1,500 of Ethernet, less 48 of IPv6 and UDP, less 52 for tunnels.
  datagram: 1_400,
  datagramRate: "off",
  datagramBurst: 1_000,
  // As RFC 9000 (section 8.1) has it.
  amplification: 3,
};

export const DEFAULT_SERVER_LIMITS: Readonly<ServerLimits> = {
  bufferMemory: 256 * MiB,
  handshakes: 1_000,
};

export const DEFAULT_TIMEOUTS: Readonly<Timeouts> = {
  firstByte: 3_000,
  frame: 10_000,
  idle: 60_000,
  writeStall: 10_000,
  age: "off",
  ageJitter: 10,
  heartbeat: 5_000,
  request: "off",
  proxyHeader: 3_000,
  handshake: 5_000,
};

export const DEFAULT_SOCKET: Readonly<SocketOptions> = {
  noDelay: true,
  keepAlive: 30_000,
  keepAliveInterval: 10_000,
  keepAliveCount: 3,
  userTimeout: "off",
  deferAccept: "off",
  fastOpen: "off",
  notSentLowWater: "off",
  receiveBuffer: "off",
  sendBuffer: "off",
  linger: "off",
  ipv6Only: false,
  backlog: 65_535,
  coalesce: true,
};

/** Timeouts of the server itself: they stand among the others, at the top only. */
export interface ServerTimeouts {
  /** A stopping server, or a worker that leaves, waits this long for what is in flight. */
  drain: number;
  /** A worker whose event loop has stood still for this long is killed and replaced. */
  hang: Deadline;
  /** Both generations of an upgrade serve for this long before the old one leaves. */
  prove: number;
}

export const DEFAULT_SERVER_TIMEOUTS: Readonly<ServerTimeouts> = {
  drain: 30_000,
  hang: 10_000,
  prove: 5_000,
};

/** Moving established connections between workers. */
export interface Migration {
  /** Reload, upgrade, scale and drain move connections; `false`: they end with their worker. */
  enabled: boolean;
  /** A new worker receives a fair share of the long connections. */
  rebalance: boolean;
}

export const DEFAULT_MIGRATION: Readonly<Migration> = {
  enabled: true,
  rebalance: true,
};

/** How connections that cannot move to another worker leave theirs. */
export interface Drain {
  /** Over this time a worker that is replaced says goodbye to its TLS connections, ms. */
  tls: number;
}

export const DEFAULT_DRAIN: Readonly<Drain> = { tls: 30_000 };

/** Client addresses, as CIDR blocks: "10.0.0.0/8", "2001:db8::/32". */
export interface Admission {
  /** Only these may come, unless there are none. */
  allow: readonly string[];
  /** These may not, even if they are in `allow`. */
  deny: readonly string[];
}

export const DEFAULT_ADMISSION: Readonly<Admission> = { allow: [], deny: [] };

/** PROXY headers in front of what clients send. */
export interface ProxyProtocol {
  /** Networks whose headers are believed, as CIDR blocks. */
  readonly trust: readonly string[];
  /** Every connection begins with one, so none comes from elsewhere. `false`: some come without, from their clients. */
  readonly required: boolean;
}

/** Thread pools, of one worker. */
export interface Tasks {
  /** Threads of a pool. `auto`: the CPUs, divided by the workers; at least one. */
  threads: number | "auto";
  /** Tasks that wait in a pool. */
  queue: number;
}

export const DEFAULT_TASKS: Readonly<Tasks> = {
  threads: "auto",
  queue: 1_024,
};

/** When a worker is overloaded, and sheds. */
export interface Shed {
  /** What a task may wait in a pool's queue while that is overloaded, ms; short tasks count at least four of their kind. */
  queueDelay: Deadline;
  /** How late the event loop may be for a while, ms. */
  loopDelay: Deadline;
  /** Resident memory of one worker, bytes. */
  memory: number | "off";
}

export const DEFAULT_SHED: Readonly<Shed> = {
  queueDelay: 10,
  loopDelay: 500,
  memory: "off",
};

/** Traces of requests, where they are made at all. */
export interface Tracing {
  /** The part of requests that are traced whose callers say nothing; `parent`: none of them. `off`: no request at all. */
  sample: number | "parent" | "off";
  /** What a caller's trace says of sampling is followed. `false`: it is only linked to. */
  trustCallers: boolean;
  /** The server's name in traces. */
  service: string;
}

export const DEFAULT_TRACING: Readonly<Tracing> = {
  sample: "off",
  trustCallers: true,
  service: "headrace",
};

/** Whether clients are asked for a certificate, and whether they must have one. */
export const CLIENT_CERTIFICATE = ["none", "optional", "required"] as const;
type ClientCertificate = (typeof CLIENT_CERTIFICATE)[number];

export const TLS_VERSIONS = ["TLSv1.2", "TLSv1.3"] as const;
type TlsVersion = (typeof TLS_VERSIONS)[number];

/** What a TLS listener does where nothing else is said. Files have no defaults. */
export interface TlsDefaults {
  clientCertificate: ClientCertificate;
  /** Protocols (RFC 7301), the preferred first. None: whatever the client names is not answered. */
  alpn: readonly string[];
  minVersion: TlsVersion;
  /** OpenSSL's names. Of TLS 1.3 they begin with "TLS_". */
  ciphers: readonly string[];
}

/** Mozilla's "intermediate" (version 5), without finite-field Diffie-Hellman: forward secrecy and AEAD only. */
export const DEFAULT_TLS: Readonly<TlsDefaults> = {
  clientCertificate: "none",
  alpn: [],
  minVersion: "TLSv1.2",
  ciphers: [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
  ],
};

/** Worker processes of one server. */
export const MAX_WORKERS = 256;

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
