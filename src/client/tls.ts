/**
 * TLS of the connections to one target: what they begin with, and the session by which the next one is shorter. The
 * server's certificate is checked against the authorities and the name unless the client was told not to.
 */
import type { Engine } from "../engine/engine.ts";
import { type TlsContext, type TlsContextOptions, tlsAddon } from "../os/tls-addon.ts";
import type { ClientCounters } from "./counters.ts";
import { checkNames, clientInvalid } from "./settings.ts";

export interface ClientTlsOptions {
  /** PEM: who is believed. Default: whom Node believes. */
  readonly ca?: string;
  /** PEM: this client's own certificate, with those between it and the root, and its key. */
  readonly certificate?: string;
  readonly key?: string;
  /** The name in the server's certificate, and that it is asked for (SNI). Default: the target's host. */
  readonly serverName?: string;
  /** `required` (default); `none`: whoever answers is believed. */
  readonly verify?: "required" | "none";
  /** Protocols that are offered, the preferred one first. */
  readonly alpn?: readonly string[];
  /** Default TLSv1.2. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3";
}

const NAMES = ["ca", "certificate", "key", "serverName", "verify", "alpn", "minVersion"];

/** What the context is made of. Throws `client-invalid`. */
export function readTls(given: unknown): ClientTlsOptions | undefined {
  if (given === undefined || given === false) return undefined;
  if (given === true) return {};
  checkNames("tls", given, NAMES);
  const options = given as ClientTlsOptions;
  for (const name of ["ca", "certificate", "key", "serverName"] as const) {
    if (options[name] !== undefined && typeof options[name] !== "string") {
      throw clientInvalid(`tls.${name}`, "not a text", name === "serverName" ? "a name" : "PEM");
    }
  }
  if ((options.certificate === undefined) !== (options.key === undefined)) {
    throw clientInvalid("tls", "one of certificate and key is missing", "both, or neither");
  }
  if (!["required", "none", undefined].includes(options.verify)) {
    throw clientInvalid("tls.verify", "unknown", "required, none");
  }
  if (!["TLSv1.2", "TLSv1.3", undefined].includes(options.minVersion)) {
    throw clientInvalid("tls.minVersion", "unknown", "TLSv1.2, TLSv1.3");
  }
  const { alpn = [] } = options;
  if (!Array.isArray(alpn) || alpn.some((name) => typeof name !== "string" || name === "" || name.length > 255)) {
    throw clientInvalid("tls.alpn", "not a list of names", "names of 1 to 255 characters");
  }
  return options;
}

/** Throws `tls-invalid` and `tls-unavailable`. */
export function makeTlsContext(options: ClientTlsOptions): TlsContext {
  const { ca, certificate, key, verify = "required", alpn = [], minVersion = "TLSv1.2" } = options;
  const context: TlsContextOptions = {
    side: "client",
    certificates: certificate && key ? [{ chain: certificate, key, names: [] }] : [],
    verify,
    alpn,
    minVersion,
    sessionIdContext: "",
  };
  return tlsAddon().context(ca === undefined ? context : { ...context, ca });
}

export class ClientTls {
  readonly #context: TlsContext;
  readonly #serverName: string;
  readonly #counters: ClientCounters;
  /** A secret. */
  #session: Uint8Array | undefined;

  constructor(context: TlsContext, serverName: string, counters: ClientCounters) {
    this.#context = context;
    this.#serverName = serverName;
    this.#counters = counters;
  }

  /** Throws as `Engine.secure`. */
  secure(engine: Engine, slot: number, generation: number): void {
    const session = this.#session;
    const options = session ? { serverName: this.#serverName, session } : { serverName: this.#serverName };
    engine.secure(slot, generation, this.#context, options);
  }

  secured(engine: Engine, slot: number, generation: number): void {
    if (engine.tls(slot, generation)?.resumed) this.#counters.resumed += 1;
  }

  /** Keeps the session of a connection on which the server has answered. */
  keep(engine: Engine, slot: number, generation: number): void {
    this.#session = engine.tlsSession(slot, generation) ?? this.#session;
  }
}
