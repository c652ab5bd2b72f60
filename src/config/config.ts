/**
 * What the configuration is once it has been read: plain data, so that it travels to the workers as JSON.
 * load.ts makes it; the primary and the workers read it and never change it.
 */
import type { Address } from "../base/address.ts";
import type {
  Admission,
  Deadline,
  Limits,
  LogLevel,
  Migration,
  ProxyProtocol,
  Shed,
  SocketOptions,
  Tasks,
  Timeouts,
  TlsDefaults,
} from "../base/settings.ts";
import type { Place } from "./finding.ts";

export const BUILTIN_SERVICES = [
  "echo-line",
  "echo-frame",
  "echo-raw",
  "echo-rpc",
  "hash-line",
  "hash-frame",
  "echo-udp",
] as const;
type BuiltinService = (typeof BUILTIN_SERVICES)[number];
/** Those that serve datagrams; all others serve connections. */
export const UDP_SERVICES: ReadonlySet<BuiltinService> = new Set<BuiltinService>(["echo-udp"]);

/** Which service a listener runs. `path` is absolute, `given` what the user wrote. */
export type ServiceRef =
  | { readonly kind: "builtin"; readonly name: BuiltinService }
  | { readonly kind: "module"; readonly path: string; readonly given: string };

/** A file that the configuration names. It is read later, and again (certificate.ts). */
export interface GivenFile {
  /** Absolute, links as they were given. */
  readonly path: string;
  /** Where it is named. */
  readonly place: Place;
}

export interface CertificateFiles {
  readonly certificate: GivenFile;
  readonly key: GivenFile;
  /** Server names (SNI) that get it. Absent: those in the certificate. */
  readonly names?: readonly string[];
}

/** Complete. */
export interface TlsConfig extends Readonly<TlsDefaults> {
  /** At least one. The first is for clients that name no server, or one that none is for. */
  readonly certificates: readonly CertificateFiles[];
  /** Who signs the certificates of clients. */
  readonly ca?: GivenFile;
  /** Absolute path of the file that session secrets are written to. */
  readonly keyLog?: string;
}

export interface ListenerConfig {
  /** Unique. Names the listener in logs and metrics, and identifies its socket when the port is 0. */
  readonly name: string;
  readonly address: Address;
  /** The address as the user wrote it. */
  readonly addressText: string;
  readonly service: ServiceRef;
  /** Only what the user set: the service's own values and the defaults fill the gaps (resolve.ts). */
  readonly limits: Partial<Limits>;
  /** Only what the user set, as with `limits`. */
  readonly timeouts: Partial<Timeouts>;
  /** Complete. */
  readonly socket: SocketOptions;
  /** Its own, which are asked besides the server's. */
  readonly admission: Admission;
  /** Connections begin with a PROXY header. */
  readonly proxyProtocol?: ProxyProtocol;
  /** Absent: it is plaintext. */
  readonly tls?: TlsConfig;
}

/** Limits of one client address. Listeners with the same ones count together. */
export type ClientLimits = Readonly<
  Pick<Limits, "connectionsPerAddress" | "connectRate" | "connectBurst" | "ipv6Prefix">
>;

/** The admin server's. */
export interface AdminConfig {
  readonly address: Address;
  /** As the user wrote it. */
  readonly addressText: string;
  /** A secret, which workers do not get. Absent: one is generated. */
  readonly token?: string;
  /** Names by which clients may call it, beside addresses and localhost; in lower case. */
  readonly hosts: readonly string[];
  /** Whether CPU profiles and heap snapshots may be asked for over it. */
  readonly profiles: boolean;
}

export interface Config {
  /** Worker processes. */
  readonly workers: number;
  /** At least one; names and addresses are unique. */
  readonly listeners: readonly ListenerConfig[];
  /** How long a stopping server waits for what is in flight, ms. */
  readonly drainMs: number;
  /** A worker whose event loop has stood still for this long is killed and replaced, ms. */
  readonly hangMs: Deadline;
  /** How long both generations of an upgrade serve before the old one leaves, ms. */
  readonly proveMs: number;
  /** Bytes that the connections of one worker may hold together. */
  readonly bufferMemory: number;
  /** TLS handshakes in progress in one worker. */
  readonly handshakes: number;
  /** Over this time a worker that is replaced says goodbye to its TLS connections, ms. */
  readonly tlsDrainMs: number;
  readonly migration: Readonly<Migration>;
  /** Only what the user set: a pool's own values and the defaults fill the gaps (src/tasks). */
  readonly tasks: Readonly<Partial<Tasks>>;
  readonly shed: Readonly<Shed>;
  /** Connections open at once in all workers and listeners together. */
  readonly connections: number;
  /** How clients are limited by their addresses where a listener says nothing else. */
  readonly clients: ClientLimits;
  readonly admission: Admission;
  readonly logLevel: LogLevel;
  /** Absent: there is no admin server. */
  readonly admin?: AdminConfig;
  /** Absolute path of the control socket; absent: the runtime directory decides. */
  readonly control?: string;
  /** Absolute path of the file that holds the primary's pid; absent: there is none. */
  readonly pidFile?: string;
  /** The configuration file as the user named it, or "built-in defaults". */
  readonly source: string;
}

/** The command line's part of the configuration, as typed. */
export interface Flags {
  /** The positional argument. Without `listen` it is served on 127.0.0.1:9000. */
  readonly service?: string | undefined;
  /** `--listen`, once per address. Replaces the file's listeners. */
  readonly listen?: readonly string[] | undefined;
  /** `--workers` */
  readonly workers?: string | undefined;
  /** `--log-level` */
  readonly logLevel?: string | undefined;
  /** `--control` */
  readonly control?: string | undefined;
}
