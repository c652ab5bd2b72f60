/**
 * The second native addon's face: TLS by the OpenSSL that Node itself is made of. Loaded at first use, so that a Node
 * that does not export it loses TLS and nothing else. It makes contexts (certificates, rules, ticket keys), which
 * `Engine.secure` puts on a slot; SNI and ALPN are decided in there, and no byte of a connection comes by here.
 */
import { createRequire } from "node:module";
import { constants } from "node:os";
import { join } from "node:path";
import { HeadraceError, messageOf } from "../base/errors.ts";
import { packageRoot } from "./addon.ts";

/** What connections are secured by. It lives as long as it or one of its connections is in use. */
export type TlsContext = { readonly tlsContext: unique symbol };

/** Ticket keys in memory that several processes share. */
export type TicketMemory = { readonly ticketMemory: unique symbol };

interface TlsCertificate {
  /** PEM: the certificate itself, then those between it and the root. */
  readonly chain: string;
  /** PEM, not encrypted. */
  readonly key: string;
  /** Server side: the names (SNI) that it is for, "*.example.org" for those one label below. */
  readonly names: readonly string[];
}

export interface TlsContextOptions {
  readonly side: "server" | "client";
  /** Server side: the first is for clients that ask for no name or for one that no other has. Client side: one or none. */
  readonly certificates: readonly TlsCertificate[];
  /** PEM: whose certificates are believed. Default of a client: those that Node believes. */
  readonly ca?: string;
  /**
   * Of the peer's certificate. Server: whether it is asked for; "optional" also lets one in that is not believed, or
   * expired, and says so (`TlsInfo.verifyError`). Client: "optional" does not refuse a wrong one either.
   */
  readonly verify: "none" | "optional" | "required";
  /** Protocols, the preferred one first. A client that offers none of them is refused; one that offers nothing is not. */
  readonly alpn: readonly string[];
  readonly minVersion: "TLSv1.2" | "TLSv1.3";
  /** Of TLS 1.2, as OpenSSL writes them. Default: those with AEAD and ECDHE. */
  readonly ciphers?: string;
  /** Of TLS 1.3. */
  readonly ciphersuites?: string;
  /** Server side: keys of session tickets. Default: keys of this context's own. */
  readonly tickets?: TicketMemory;
  /** Every connection's secrets are written there (NSS key log format). It must stay open. */
  readonly keyLogFd?: number;
  /** Server side: only sessions made by a context of the same name (at most 32 bytes) are resumed. */
  readonly sessionIdContext: string;
}

/** What the binary exports. A text instead of a handle says what is wrong. */
interface TlsBinary {
  context(
    options: Required<Omit<TlsContextOptions, "tickets">> & { tickets: TicketMemory | undefined },
  ): TlsContext | string;
  tickets(fd: number): TicketMemory | string;
}

export interface TlsAddon {
  /** Throws `tls-invalid` with OpenSSL's reason: a key that does not match, a cipher that is none, …. */
  context(options: TlsContextOptions): TlsContext;
  /** Maps ticket keys (the layout of native/tls/tickets.h) read-only; the descriptor may be closed. Throws `tls-invalid`. */
  tickets(fd: number): TicketMemory;
}

const require = createRequire(import.meta.url);

/** Not imported: it would be loaded, certificates and all, by everyone who loads this file. */
const nodeRoots = (): string => (require("node:tls") as typeof import("node:tls")).rootCertificates.join("\n");

function load(): TlsBinary {
  const { path } = require("node-gyp-build") as { path(directory: string): string };
  const module = { exports: {} };
  try {
    // All symbols at once: one that this Node lacks would else end the process at its first use.
    process.dlopen(module, path(join(packageRoot(), "native", "tls")), constants.dlopen.RTLD_NOW);
  } catch (cause) {
    throw new HeadraceError("tls-unavailable", `TLS is not available in this Node: ${messageOf(cause)}`, {}, { cause });
  }
  return module.exports as TlsBinary;
}

function valid<T>(result: T | string): T {
  if (typeof result === "string") throw new HeadraceError("tls-invalid", `TLS: ${result}`);
  return result;
}

let loaded: TlsAddon | undefined;

/** Throws `tls-unavailable` where Node does not export OpenSSL 3, or the binary is missing. */
export function tlsAddon(): TlsAddon {
  if (loaded) return loaded;
  const binary = load();
  loaded = {
    context: (options) =>
      valid(
        binary.context({
          ciphers: "",
          ciphersuites: "",
          tickets: undefined,
          keyLogFd: -1,
          ...options,
          ca: options.ca ?? (options.side === "client" ? nodeRoots() : ""),
        }),
      ),
    tickets: (fd) => valid(binary.tickets(fd)),
  };
  return loaded;
}
