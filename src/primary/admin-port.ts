/**
 * Where the admin server stands: its socket, its token and which server serves it now. A start, a reload and an upgrade
 * all come here with a configuration: `prepare` does what may fail (the address, the token's file, loading the HTTP
 * server with all that it serves) and changes nothing that is there; `commit` brings it into effect, or, should the kernel
 * refuse to listen, leaves everything as it was.
 */

import type { HandedSessions } from "../admin/auth.ts";
import type { AdminServer } from "../admin/server.ts";
import type { AdminSource } from "../admin/source.ts";
import { type Address, formatAddress } from "../base/address.ts";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { DEFAULT_SOCKET } from "../base/settings.ts";
import type { AdminConfig } from "../config/config.ts";
import { canonicalHost, type Endpoint, overlap } from "../config/conflicts.ts";
import { boundPort, closeDescriptor } from "../os/descriptors.ts";
import { errnoName } from "../os/errno.ts";
import { bindSocket } from "../os/listening.ts";
import { packSocketOptions } from "../os/socket.ts";
import { addressError } from "./addresses.ts";
import { adoptTokenFile, makeTokenFile, removeTokenFile, type TokenFile } from "./admin-token.ts";

/** A listening socket on its way to the next generation, or from the one before. */
export interface HandedAdmin {
  /** Which address it was made for. */
  readonly key: string;
  readonly fd: number;
}

export interface AdminPortOptions {
  readonly log: Logger;
  readonly source: AdminSource;
  /** Path of the control socket. */
  readonly control: string;
  readonly uid: number;
  /** An upgrade has started this process. */
  readonly successor: boolean;
}

export interface PreparedAdmin {
  /** Rejects with why it cannot be; then what was there serves on. */
  commit(sessions?: HandedSessions): Promise<void>;
  /** It is not to be: closes what was opened for it. */
  cancel(): void;
}

interface Place extends HandedAdmin {
  readonly address: string;
  readonly port: number;
}

const wide = (address: Address): Endpoint => ({ address, ipv6Only: false });

const BACKLOG = 256;
/** At the end of the process: what is being answered gets so long, ms. */
const END_MS = 200;

function keyOf({ address: { host, port } }: AdminConfig): string {
  return `${canonicalHost(host)}|${port}`;
}

function placeOf(config: AdminConfig, fd: number): Place {
  const port = boundPort(fd);
  return { key: keyOf(config), fd, port, address: formatAddress(config.address.host, port) };
}

type Standing = Pick<Place, "key" | "port">;

const hostOf = ({ key }: Standing): string => key.slice(0, key.lastIndexOf("|"));

/** Whether it stands where it is wanted: at the same address, or at the very port that port 0 has come to. */
function standsAt(place: Standing | undefined, config: AdminConfig): boolean {
  if (!place) return false;
  const { host, port } = config.address;
  return place.key === keyOf(config) || (hostOf(place) === canonicalHost(host) && place.port === port);
}

/** It is in its own way: both cannot be bound at once, and the one that is there is not given up first. */
function overlapError({ address, addressText }: AdminConfig, own: Standing): HeadraceError {
  const where = `${formatAddress(hostOf(own), own.port)}, where the admin server is now`;
  const message = `admin.address: ${addressText} overlaps ${where}; choose another port, or restart`;
  return new HeadraceError("address-in-use", message, {
    address: formatAddress(address.host, address.port),
    option: "admin.address",
  });
}

/** Throws `address-in-use` and the like. `own`: where it stands now. */
function bind(config: AdminConfig, own: Standing | undefined): Place {
  const { address, addressText } = config;
  const options = packSocketOptions({ ...DEFAULT_SOCKET, backlog: BACKLOG, ipv6Only: false });
  const fd = bindSocket(address, address.port, true, options);
  if (fd >= 0) return placeOf(config, fd);
  if (own && overlap(wide(address), wide({ ...address, host: hostOf(own), port: own.port }))) {
    throw overlapError(config, own);
  }
  const subject = `admin.address: ${addressText}`;
  throw addressError(errnoName(fd), { subject, option: "admin.address", address, addressText });
}

/** After a listen() that failed: Node may have closed it already. */
function closeIfOpen({ fd, port }: Place): void {
  try {
    if (boundPort(fd) === port) closeDescriptor(fd);
  } catch {
    // It is closed.
  }
}

export class AdminPort {
  readonly #options: AdminPortOptions;
  #place: Place | undefined;
  #server: AdminServer | undefined;
  #file: TokenFile | undefined;
  #left = false;

  constructor(options: AdminPortOptions) {
    this.#options = options;
  }

  /** "127.0.0.1:9900"; undefined while there is none. */
  get address(): string | undefined {
    return this.#place?.address;
  }

  /** Where the generated token is; undefined when it is the user's. */
  get tokenFile(): string | undefined {
    return this.#file?.path;
  }

  /** For the next generation. The descriptor stays this one's too. */
  get handed(): HandedAdmin | undefined {
    return this.#left || !this.#server ? undefined : this.#place;
  }

  get sessions(): HandedSessions | undefined {
    return this.#server?.sessions;
  }

  /** `handed`: the generation before had this one, which is this object's now. Rejects with what keeps it from serving. */
  async prepare(config: AdminConfig | undefined, handed?: HandedAdmin): Promise<PreparedAdmin> {
    const before = handed && { ...handed, port: boundPort(handed.fd) };
    if (before && !(config && standsAt(before, config))) closeDescriptor(before.fd);
    if (!config) return { commit: () => this.#close(), cancel: () => {} };
    const kept = standsAt(this.#place, config) ? this.#place : undefined;
    const taken = before && standsAt(before, config) ? placeOf(config, before.fd) : undefined;
    const place = kept ?? taken ?? bind(config, this.#place ?? before);
    let file: TokenFile | undefined;
    const undo = (): void => {
      if (!kept) closeDescriptor(place.fd);
      // That of the generation before is not ours yet.
      if (file?.made && file !== this.#file) file.release();
    };
    try {
      if (config.token === undefined) file = this.#file ?? this.#tokenFile(taken !== undefined);
      const token = config.token ?? file?.token ?? "";
      const server = kept ? undefined : await this.#load(place, token, config.hosts);
      return {
        commit: async (sessions) => {
          if (server) await this.#replace(server, place, file, sessions);
          else this.#server?.configure(token, config.hosts);
          // Another spelling of where it stands: the next generation asks by that one.
          if (kept) this.#place = placeOf(config, kept.fd);
          this.#own(file);
        },
        cancel: () => {
          undo();
          void server?.leave(0);
        },
      };
    } catch (error) {
      undo();
      throw error;
    }
  }

  /** The next generation has the socket: what is open here gets its last answers. */
  async leave(): Promise<void> {
    this.#left = true;
    await this.#server?.leave();
  }

  /** The process ends. */
  async end(): Promise<void> {
    if (this.#server) await this.#server.leave(END_MS);
    // After an upgrade it is the next generation's.
    if (!this.#left) this.#file?.release();
  }

  #tokenFile(taken: boolean): TokenFile {
    const { control, uid, successor } = this.#options;
    return taken || successor ? adoptTokenFile(control, uid) : makeTokenFile(control);
  }

  /** Ready to answer, but for the socket. Throws `change-failed` when a part of it cannot be loaded. */
  async #load({ port }: Place, token: string, hosts: readonly string[]): Promise<AdminServer> {
    const { log, source } = this.#options;
    try {
      const { AdminServer } = await import("../admin/server.ts");
      return await AdminServer.create({ source, log, token, hosts, port });
    } catch (error) {
      const message = `the admin server cannot be loaded: ${messageOf(error)}`;
      throw new HeadraceError("change-failed", message, { option: "admin.address" }, { cause: error });
    }
  }

  async #replace(
    server: AdminServer,
    place: Place,
    file: TokenFile | undefined,
    sessions: HandedSessions | undefined,
  ): Promise<void> {
    const before = this.#server;
    try {
      await server.listen(place.fd, sessions ?? before?.sessions);
    } catch (error) {
      closeIfOpen(place);
      if (file?.made && file !== this.#file) file.release();
      void server.leave(0);
      throw error;
    }
    this.#server = server;
    this.#place = place;
    const told = { address: place.address, ...(file ? { tokenFile: file.path } : {}) };
    const where = file ? `, its token is in ${file.path}` : "";
    this.#options.log.info(told, `admin server on http://${place.address}${where}`);
    // Nobody waits for those that still are connected there.
    void before?.leave();
  }

  /** From here on this generated token is the server's, or none. */
  #own(file: TokenFile | undefined): void {
    if (this.#file !== file) this.#file?.release();
    if (this.#options.successor && !file) removeTokenFile(this.#options.control);
    this.#file = file;
  }

  async #close(): Promise<void> {
    const before = this.#server;
    this.#server = undefined;
    this.#place = undefined;
    this.#file?.release();
    this.#file = undefined;
    if (before) this.#options.log.info("the admin server is off now");
    void before?.leave();
  }
}
