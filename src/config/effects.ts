/**
 * How each option comes into effect when the configuration of a running server changes. Complete: a test walks the
 * schema, and the types of the groups leave nothing out. change.ts goes by it, and the documentation prints it.
 */
import type {
  Admission,
  Drain,
  Limits,
  Migration,
  ProxyProtocol,
  ServerLimits,
  ServerTimeouts,
  Shed,
  SocketOptions,
  Tasks,
  Timeouts,
} from "../base/settings.ts";

/**
 * live: running workers take the new value, open connections included where they can.
 * workers: new workers take it. scale: workers are added or removed. restart: the server must be started again.
 */
export type Effect = "live" | "workers" | "scale" | "restart";

type Effects<T> = { readonly [Name in keyof T]: Effect };

const LIMITS: Effects<Limits> = {
  connections: "live",
  onLimit: "live",
  connectionsPerAddress: "live",
  connectRate: "live",
  connectBurst: "live",
  ipv6Prefix: "live",
  frame: "live",
  inFlight: "live",
  inFlightPerWorker: "live",
  highWater: "live",
  lowWater: "live",
  buffered: "live",
  minRate: "live",
  proxyHeader: "live",
  datagram: "live",
  datagramRate: "live",
  datagramBurst: "live",
  amplification: "live",
};

const SERVER_LIMITS: Effects<ServerLimits> = { bufferMemory: "live", handshakes: "live" };

const TIMEOUTS: Effects<Timeouts> = {
  firstByte: "live",
  frame: "live",
  idle: "live",
  writeStall: "live",
  age: "live",
  ageJitter: "live",
  heartbeat: "live",
  request: "live",
  proxyHeader: "live",
  handshake: "live",
};

const SERVER_TIMEOUTS: Effects<ServerTimeouts> = { drain: "live", hang: "live", prove: "live" };

const DRAIN: Effects<Drain> = { tls: "live" };

/** For newcomers: open connections keep what they began with. */
const TLS: Readonly<Record<string, Effect>> = {
  certificate: "live",
  key: "live",
  "certificates[].certificate": "live",
  "certificates[].key": "live",
  "certificates[].names": "live",
  ca: "live",
  clientCertificate: "live",
  alpn: "live",
  minVersion: "live",
  ciphers: "live",
  keyLog: "live",
};

const MIGRATION: Effects<Migration> = { enabled: "live", rebalance: "live" };

/** For newcomers: who is there already may stay. */
const ADMISSION: Effects<Admission> = { allow: "live", deny: "live" };

/** The same. */
const PROXY_PROTOCOL: Effects<ProxyProtocol> = { trust: "live", required: "live" };

/** A pool's threads are made with it. */
const TASKS: Effects<Tasks> = { threads: "workers", queue: "live" };

const SHED: Effects<Shed> = { queueDelay: "live", loopDelay: "live", memory: "live" };

/** Set on the listening sockets that are there: connections accepted from then on inherit them (tcp(7)). */
const SOCKET: Effects<SocketOptions> = {
  noDelay: "live",
  keepAlive: "live",
  keepAliveInterval: "live",
  keepAliveCount: "live",
  userTimeout: "live",
  deferAccept: "live",
  fastOpen: "live",
  notSentLowWater: "live",
  receiveBuffer: "live",
  sendBuffer: "live",
  linger: "live",
  // The kernel refuses it once a socket is bound (ipv6(7)), and no second socket can have the address meanwhile.
  ipv6Only: "restart",
  // Repeating listen() changes it and keeps the queue.
  backlog: "live",
  coalesce: "live",
};

function grouped(group: string, effects: Readonly<Record<string, Effect>>): Record<string, Effect> {
  return Object.fromEntries(Object.entries(effects).map(([name, effect]) => [`${group}.${name}`, effect]));
}

/** By option, as the documentation names it: `timeouts.idle`, `listeners[].service`. */
export const EFFECTS: Readonly<Record<string, Effect>> = {
  workers: "scale",
  "listeners[].name": "workers",
  "listeners[].address": "workers",
  "listeners[].service": "workers",
  ...grouped("listeners[].limits", LIMITS),
  ...grouped("listeners[].timeouts", TIMEOUTS),
  ...grouped("listeners[].socket", SOCKET),
  ...grouped("listeners[].admission", ADMISSION),
  ...grouped("listeners[].proxyProtocol", PROXY_PROTOCOL),
  ...grouped("listeners[].tls", TLS),
  ...grouped("limits", { ...LIMITS, ...SERVER_LIMITS }),
  ...grouped("timeouts", { ...TIMEOUTS, ...SERVER_TIMEOUTS }),
  ...grouped("socket", SOCKET),
  ...grouped("drain", DRAIN),
  ...grouped("migration", MIGRATION),
  ...grouped("admission", ADMISSION),
  ...grouped("tasks", TASKS),
  ...grouped("shed", SHED),
  "log.level": "live",
  "admin.address": "live",
  "admin.token": "live",
  "admin.hosts": "live",
  "admin.profiles": "live",
  control: "restart",
  pidFile: "restart",
};
