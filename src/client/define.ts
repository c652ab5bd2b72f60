/**
 * defineClient: what a program or a service asks other servers through. The definition is checked at once; engine, names
 * and connections come with the first call.
 */
import { isIP, isIPv6 } from "node:net";
import type { Codec } from "../codec/codec.ts";
import { BEGIN_CALL, type Callable, type CallOptions } from "../service/call.ts";
import { Addresses, type Resolve, systemResolve } from "./addresses.ts";
import { ManyAtOnce } from "./many-at-once.ts";
import { OneAtATime } from "./one-at-a-time.ts";
import { type ClientStats, ConnectionPool } from "./pool.ts";
import { checkNames, clientInvalid, type GivenSettings, readSettings } from "./settings.ts";
import type { TargetOptions } from "./target.ts";
import { ClientTls, type ClientTlsOptions, makeTlsContext, readTls } from "./tls.ts";

export interface ClientDefinition extends GivenSettings {
  /** For errors and figures. */
  readonly name: string;
  /** Where to: "users.internal:7000", "10.0.0.7:7000", "[::1]:7000". A name may have any number of addresses. */
  readonly targets: readonly string[];
  /** The addresses of a name, instead of the system's: say, from a registry of services. */
  readonly resolve?: Resolve;
  readonly tls?: boolean | ClientTlsOptions;
}

/** Replies carry no name: one call at a time on each connection. */
export interface PlainClientDefinition<In, Out> extends ClientDefinition {
  readonly codec: Codec<In, Out>;
  readonly rpc?: false;
}

/** Many calls at once on a few connections; their deadlines, priorities and traces go with them. */
export interface RpcClientDefinition extends ClientDefinition {
  readonly rpc: true;
  readonly codec?: undefined;
}

export interface Client<Out, In> extends Callable<Out, In> {
  /**
   * Asks one of the targets. Rejects with `DeadlineExceeded`, `ConnectFailed`, `ServerBusy` (too many calls wait, or the
   * server is busy), `RemoteError` (the server says that it failed), `connection-closed` (lost meanwhile: whether the
   * server has done it nobody knows), `reply-invalid`, `client-closed`, and the signal's reason.
   */
  call(message: Out, options?: CallOptions): Promise<In>;
  stats(): ClientStats;
  /**
   * Takes no more calls, gives those there are `graceMs` (default 5000) to end, and closes every connection. Resolves
   * when that is done; never rejects.
   */
  close(graceMs?: number): Promise<void>;
}

const PROPERTIES = [
  "name",
  "targets",
  "codec",
  "rpc",
  "resolve",
  "tls",
  "timeouts",
  "limits",
  "retries",
  "close",
  "localAddress",
  "keepAlive",
];
const CLOSE_GRACE_MS = 5_000;
const MOST_TARGETS = 256;
const TARGETS_ALLOWED = '"host:port", "10.0.0.7:7000", "[::1]:7000"';

interface HostAndPort {
  readonly text: string;
  readonly host: string;
  readonly port: number;
}

function parseTarget(text: unknown): HostAndPort {
  const match = /^(?:\[([^\]]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(typeof text === "string" ? text : "");
  const [, six, plain = "", digits] = match ?? [];
  const port = Number(digits);
  if (!match || port < 1 || port > 65_535 || (six !== undefined && !isIPv6(six))) {
    throw clientInvalid("targets", `${JSON.stringify(text)} is not a host and a port`, TARGETS_ALLOWED);
  }
  return { text: text as string, host: six ?? plain, port };
}

function readTargets(given: unknown): HostAndPort[] {
  if (!Array.isArray(given) || given.length === 0 || given.length > MOST_TARGETS) {
    throw clientInvalid("targets", "not a list of targets", `1 to ${MOST_TARGETS} of ${TARGETS_ALLOWED}`);
  }
  return given.map(parseTarget);
}

function checkShape(given: ClientDefinition & { readonly codec?: unknown; readonly rpc?: unknown }): void {
  checkNames("", given, PROPERTIES);
  const { name, codec, rpc, resolve, localAddress } = given;
  if (typeof name !== "string" || name === "") throw clientInvalid("name", "not a text", "one character or more");
  if (rpc !== undefined && typeof rpc !== "boolean") throw clientInvalid("rpc", "not a boolean", "true or false");
  if (rpc === true && codec !== undefined) throw clientInvalid("codec", "rpc has its own", "one of codec and rpc");
  const { decode, encodeInto, borrowed } = (codec ?? {}) as Partial<Codec<unknown, unknown>>;
  if (rpc !== true && (typeof decode !== "function" || typeof encodeInto !== "function")) {
    throw clientInvalid("codec", "missing or not a codec", "line(), frame(), a Codec of your own, or rpc: true");
  }
  if (borrowed)
    throw clientInvalid("codec", "its messages are borrowed", "one whose messages are the caller's to keep");
  if (resolve !== undefined && typeof resolve !== "function") {
    throw clientInvalid("resolve", "not a function", "(host) => a promise of IP addresses");
  }
  if (localAddress !== undefined && !isIP(localAddress)) {
    throw clientInvalid(
      "localAddress",
      `${JSON.stringify(localAddress)} is no IP address`,
      "an IP address of this machine",
    );
  }
}

class DefinedClient<Out, In> implements Client<Out, In> {
  readonly #pool: ConnectionPool;

  constructor(pool: ConnectionPool) {
    this.#pool = pool;
  }

  get name(): string {
    return this.#pool.name;
  }

  call(message: Out, options: CallOptions = {}): Promise<In> {
    return this[BEGIN_CALL](message, options, Number.POSITIVE_INFINITY);
  }

  [BEGIN_CALL](...[message, options, leftMs, held]: Parameters<Callable<Out, In>[typeof BEGIN_CALL]>): Promise<In> {
    return this.#pool.call(message, options, leftMs, held) as Promise<In>;
  }

  stats(): ClientStats {
    return this.#pool.stats();
  }

  close(graceMs: number = CLOSE_GRACE_MS): Promise<void> {
    return this.#pool.close(graceMs);
  }
}

export function defineClient(definition: RpcClientDefinition): Client<string | Uint8Array, Buffer>;
export function defineClient<In, Out>(definition: PlainClientDefinition<In, Out>): Client<Out, In>;
/** Throws `client-invalid`, naming the property; with `tls` also `tls-invalid` and `tls-unavailable`. */
export function defineClient<In, Out>(
  definition: RpcClientDefinition | PlainClientDefinition<In, Out>,
): Client<Out, In> {
  checkShape(definition);
  const { name, codec, resolve = systemResolve } = definition;
  const settings = readSettings(definition, codec === undefined);
  const given = readTargets(definition.targets);
  const tls = readTls(definition.tls);
  const context = tls && makeTlsContext(tls);
  const pool = new ConnectionPool({
    name,
    settings,
    targets: (counters) =>
      given.map(
        ({ text, host, port }): TargetOptions => ({
          text,
          port,
          addresses: new Addresses(host, resolve, settings.resolveMs, settings.connectMs, counters),
          tls: context && new ClientTls(context, tls?.serverName ?? host, counters),
        }),
      ),
    makeExchange: codec ? () => new OneAtATime(codec) : () => new ManyAtOnce(settings.inFlight),
  });
  return new DefinedClient<Out, In>(pool);
}
