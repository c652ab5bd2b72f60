/**
 * Makes TLS contexts of what the primary has read, one for each listener that has TLS, whenever the certificates or the
 * configuration change. Connections go on with the context that they began with. A worker reads no certificate files:
 * all of them, also one that starts while a file is broken, use what the primary holds.
 */
import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { TlsSecrets } from "../base/tls-material.ts";
import type { ListenerConfig, TlsConfig } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import { type TicketMemory, type TlsContext, tlsAddon } from "../os/tls-addon.ts";

/** What names the context of a session: OpenSSL takes 32 bytes. */
const NAME_BYTES = 32;
const OWNER_ONLY = 0o600;
const OTHERS = 0o077;

export class TlsContexts {
  readonly #ticketKeys: number;
  /** Mapped when the first context is made. */
  #tickets: TicketMemory | undefined;
  /** Descriptors of key logs, by path. They stay open: contexts write to them. */
  readonly #keyLogs = new Map<string, number>();

  /** `ticketKeys`: the descriptor of src/os/ticket-keys.ts. */
  constructor(ticketKeys: number) {
    this.#ticketKeys = ticketKeys;
  }

  /** Of a listener; undefined when it is plaintext. Throws `tls-invalid`, `tls-unavailable`, `system`. */
  make(listener: ListenerConfig, secrets: TlsSecrets): TlsContext | undefined {
    const { tls, name } = listener;
    if (!tls) return undefined;
    const material = secrets[listenerKey(listener)];
    if (!material) throw new HeadraceError("tls-invalid", `listener ${name}: there is no certificate`);
    this.#tickets ??= tlsAddon().tickets(this.#ticketKeys);
    const { ca, certificates } = material;
    try {
      return tlsAddon().context({
        side: "server",
        certificates,
        ...(ca === undefined ? {} : { ca }),
        verify: tls.clientCertificate,
        alpn: tls.alpn,
        minVersion: tls.minVersion,
        ...suitesOf(tls),
        tickets: this.#tickets,
        ...(tls.keyLog === undefined ? {} : { keyLogFd: this.#keyLog(tls.keyLog) }),
        sessionIdContext: sessionsOf(listener),
      });
    } catch (cause) {
      if (cause instanceof HeadraceError && cause.code !== "tls-invalid") throw cause;
      throw new HeadraceError("tls-invalid", `listener ${name}: ${messageOf(cause)}`, {}, { cause });
    }
  }

  #keyLog(path: string): number {
    let fd = this.#keyLogs.get(path);
    if (fd === undefined) {
      const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
      fd = openSync(path, O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_WRONLY, OWNER_ONLY);
      const problem = exposure(fd);
      if (problem !== undefined) {
        closeSync(fd);
        throw new HeadraceError("tls-invalid", `the key log ${path} ${problem}`);
      }
      this.#keyLogs.set(path, fd);
    }
    return fd;
  }
}

/** Why a file may not get the secrets of all sessions: it was there before, and is not ours alone. */
function exposure(fd: number): string | undefined {
  const facts = fstatSync(fd);
  if (!facts.isFile()) return "is not a file";
  if (facts.uid !== process.geteuid?.()) return `belongs to another user (${facts.uid})`;
  return (facts.mode & OTHERS) === 0 ? undefined : "is open to other users: chmod go= it";
}

function suitesOf({ ciphers }: TlsConfig): { ciphers: string; ciphersuites: string } {
  const isNew = (name: string): boolean => name.startsWith("TLS_");
  return {
    ciphers: ciphers.filter((name) => !isNew(name)).join(":"),
    ciphersuites: ciphers.filter(isNew).join(":"),
  };
}

/**
 * A session is resumed by any worker and generation, whatever certificate the server has by then, but not on another
 * listener. Nor when other clients are let in, which the addon sees to.
 */
function sessionsOf(listener: ListenerConfig): string {
  return createHash("sha256").update(listenerKey(listener)).digest("hex").slice(0, NAME_BYTES);
}
