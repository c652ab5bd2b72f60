/** A server with TLS for one test: an authority, a certificate for `a.example`, and a service that tells what it sees. */

import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { stringify } from "yaml";
import { Authority, type Issued } from "./authority.js";
import { LineClient } from "./client.js";
import { makeFolder, writeService } from "./folder.js";
import { startServer, type TestServer } from "./server.js";

/** What the service answers to "tls". */
export interface Seen {
  readonly worker: number;
  readonly pid: number;
  /** The client, and who has connected. */
  readonly remote: string;
  readonly peer: string;
  readonly protocol: string;
  readonly cipher: string;
  readonly serverName?: string;
  readonly alpn?: string;
  readonly resumed: boolean;
  readonly client?: {
    readonly subject: Record<string, string>;
    readonly subjectAltNames: string[];
    readonly fingerprint256: string;
    readonly verified: boolean;
    readonly problem?: string;
  };
}

const SERVICE = `export default defineService({
  name: "seer",
  codec: line(),
  timeouts: { firstByte: "off", idle: "off" },
  env: ({ index }) => index,
  onMessage(text, { connection, env }) {
    if (text !== "tls") return text;
    const { protocol, cipher, serverName, alpn, resumed, client } = connection.tls ?? {};
    const [remote, peer] = [connection.remote.host, connection.peer.host];
    return JSON.stringify({ worker: env, pid: process.pid, remote, peer, protocol, cipher, serverName, alpn, resumed, client });
  },
  onDraining: () => "goodbye",
});`;

export interface TlsRigOptions {
  /** Options of the listener's `tls`, over certificate and key. */
  readonly tls?: object;
  /** Options at the top of the file. */
  readonly top?: object;
  readonly workers?: number;
  /** Of the listener. */
  readonly proxyProtocol?: object;
  /** Listeners beside the one with TLS. */
  readonly beside?: readonly object[];
}

export class TlsRig {
  readonly t: TestContext;
  readonly folder: string;
  readonly authority: Authority;
  /** Where the server finds its certificate. */
  readonly files: Issued;
  readonly server: TestServer;
  port = 0;
  /** Of the listeners beside it. */
  ports: number[] = [];

  constructor(t: TestContext, folder: string, authority: Authority, server: TestServer, files: Issued) {
    this.t = t;
    this.folder = folder;
    this.authority = authority;
    this.server = server;
    this.files = files;
  }

  configure(options: TlsRigOptions): void {
    writeTlsConfig(this.folder, this.files, options);
  }

  /** Connects, and waits for the end of the handshake. */
  async connect(options: ConnectionOptions = {}): Promise<TlsClient> {
    const ca = [this.authority.text];
    const socket = connect({ host: "127.0.0.1", port: this.port, servername: "a.example", ca, ...options });
    this.t.after(() => socket.destroy());
    await once(socket, "secureConnect");
    return new TlsClient(socket);
  }
}

export class TlsClient extends LineClient {
  readonly tls: TLSSocket;

  constructor(socket: TLSSocket) {
    super(socket);
    this.tls = socket;
  }

  async see(): Promise<Seen> {
    return JSON.parse(await this.ask("tls")) as Seen;
  }
}

export function writeTlsConfig(folder: string, files: Issued, options: TlsRigOptions): void {
  const tls = { certificate: files.certificate, key: files.key, ...options.tls };
  const proxy = options.proxyProtocol ? { proxyProtocol: options.proxyProtocol } : {};
  const secure = { name: "secure", address: "127.0.0.1:0", service: "./service.mjs", tls, ...proxy };
  const config = { workers: options.workers ?? 1, ...options.top, listeners: [secure, ...(options.beside ?? [])] };
  writeFileSync(join(folder, "headrace.yaml"), stringify(config));
}

/** Starts it. `files` gives other files than those of a certificate for a.example. */
export async function startTls(
  t: TestContext,
  options: TlsRigOptions | ((rig: { folder: string; authority: Authority }) => TlsRigOptions) = {},
): Promise<TlsRig> {
  const folder = makeFolder(t);
  const authority = new Authority(folder);
  const files = authority.issue({ name: "a.example" });
  writeService(folder, SERVICE);
  writeTlsConfig(folder, files, typeof options === "function" ? options({ folder, authority }) : options);
  const server = startServer(t, ["--config", join(folder, "headrace.yaml")], { cwd: folder });
  const rig = new TlsRig(t, folder, authority, server, files);
  const [port = 0, ...ports] = await server.ready();
  rig.port = port;
  rig.ports = ports;
  return rig;
}
