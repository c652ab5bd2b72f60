/**
 * Where the admin server stands: its socket, its token and which server serves it now. A start, a reload and an upgrade
 * all come here with a configuration: `prepare` does what may fail (the address, the token's file) and changes nothing
 * that is there; `commit` brings it into effect. The HTTP server is loaded when there is to be one.
 */

import type { HandedSessions } from "../admin/auth.ts";
import type { AdminServer } from "../admin/server.ts";
import type { AdminSource } from "../admin/source.ts";
import { formatAddress } from "../base/address.ts";
import type { Logger } from "../base/log.ts";
import { DEFAULT_SOCKET } from "../base/settings.ts";
import type { AdminConfig } from "../config/config.ts";
import { canonicalHost } from "../config/conflicts.ts";
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
  commit(sessions?: HandedSessions): Promise<void>;
  /** It is not to be: closes what was opened for it. */
  cancel(): void;
}

interface Place extends HandedAdmin {
  readonly address: string;
  readonly port: number;
}

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

/** Throws `address-in-use` and the like. */
function bind(config: AdminConfig): Place {
  const { address, addressText } = config;
  const options = packSocketOptions({ ...DEFAULT_SOCKET, backlog: BACKLOG, ipv6Only: false });
  const fd = bindSocket(address, address.port, true, options);
  if (fd >= 0) return placeOf(config, fd);
  const subject = `admin.address: ${addressText}`;
  throw addressError(errnoName(fd), { subject, option: "admin.address", address, addressText });
}

export class AdminPort {
  readonly #options: AdminPortOptions;
  /** Loaded as soon as it is certain that it is needed: at the end of an upgrade everybody waits for it. */
  #loading: Promise<typeof import("../admin/server.ts")> | undefined;
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

  /** `handed`: the generation before had this one, which is this object's now. Throws what keeps it from serving. */
  prepare(config: AdminConfig | undefined, handed?: HandedAdmin): PreparedAdmin {
    if (handed && (!config || handed.key !== keyOf(config))) closeDescriptor(handed.fd);
    if (!config) return { commit: () => this.#close(), cancel: () => {} };
    this.#loading ??= import("../admin/server.ts");
    // Whoever commits hears of it.
    this.#loading.catch(() => {});
    const kept = this.#place?.key === keyOf(config) ? this.#place : undefined;
    const taken = handed?.key === keyOf(config) ? placeOf(config, handed.fd) : undefined;
    const place = kept ?? taken ?? bind(config);
    let file: TokenFile | undefined;
    try {
      if (config.token === undefined) file = this.#file ?? this.#tokenFile(taken !== undefined);
    } catch (error) {
      if (!kept) closeDescriptor(place.fd);
      throw error;
    }
    return {
      commit: (sessions) => this.#commit(config, place, file, sessions),
      cancel: () => {
        if (!kept) closeDescriptor(place.fd);
        // That of the generation before is not ours yet.
        if (file?.made && file !== this.#file) file.release();
      },
    };
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

  async #commit(
    config: AdminConfig,
    place: Place,
    file: TokenFile | undefined,
    sessions: HandedSessions | undefined,
  ): Promise<void> {
    const { log, source } = this.#options;
    const token = config.token ?? file?.token ?? "";
    const before = this.#server;
    if (this.#file !== file) this.#file?.release();
    if (this.#options.successor && !file) removeTokenFile(this.#options.control);
    this.#file = file;
    if (before && this.#place === place) {
      before.configure(token, config.hosts);
      return;
    }
    const { AdminServer } = await (this.#loading ?? import("../admin/server.ts"));
    const signedIn = sessions ?? before?.sessions;
    this.#server = await AdminServer.listen(place.fd, place.port, {
      source,
      log,
      token,
      hosts: config.hosts,
      ...(signedIn ? { sessions: signedIn } : {}),
    });
    this.#place = place;
    const told = { address: place.address, ...(file ? { tokenFile: file.path } : {}) };
    log.info(told, `admin server on http://${place.address}${file ? `, its token is in ${file.path}` : ""}`);
    // Nobody waits for those that still are connected there.
    void before?.leave();
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
