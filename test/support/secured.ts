/** Engines that speak TLS, as servers and as clients, and peers of theirs by node:tls. */
import { once } from "node:events";
import { type AddressInfo, createServer, connect as plainConnect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import type { SecureOptions } from "#src/engine/engine.js";
import { type TlsContext, type TlsContextOptions, tlsAddon } from "#src/os/tls-addon.js";
import { type Identity, passingAuthority } from "./authority.js";
import { type Loopback, type LoopbackOptions, openLoopback, type Recorder } from "./loopback.js";
import { Peer } from "./peer.js";
import { until } from "./until.js";

export const authority = passingAuthority();
export const localhost: Identity = authority.identity({ name: "localhost", names: ["DNS:localhost", "IP:127.0.0.1"] });

export function serverContext(options: Partial<TlsContextOptions> = {}): TlsContext {
  return tlsAddon().context({
    side: "server",
    certificates: [{ ...localhost, names: ["localhost"] }],
    verify: "none",
    alpn: [],
    minVersion: "TLSv1.2",
    sessionIdContext: "test",
    ...options,
  });
}

export function clientContext(options: Partial<TlsContextOptions> = {}): TlsContext {
  return tlsAddon().context({
    side: "client",
    certificates: [],
    ca: authority.text,
    verify: "required",
    alpn: [],
    minVersion: "TLSv1.2",
    sessionIdContext: "",
    ...options,
  });
}

/** Believes whom Node believes: nobody here. */
export const strangersContext = (): TlsContext =>
  tlsAddon().context({
    side: "client",
    certificates: [],
    verify: "required",
    alpn: [],
    minVersion: "TLSv1.2",
    sessionIdContext: "",
  });

export function secure(recorder: Recorder, context: TlsContext, options: SecureOptions = {}): void {
  recorder.engine.secure(recorder.slot, recorder.generation, context, options);
}

/** An engine that secures whatever it accepts. */
export function openSecure(
  t: TestContext,
  context: TlsContext = serverContext(),
  options: LoopbackOptions = {},
): Loopback {
  const loopback = openLoopback(t, options);
  loopback.on = (recorder) => ({ onOpen: () => secure(recorder, context) });
  return loopback;
}

/** Once secured; everything that comes is sent back. */
export function echo(recorder: Recorder): Recorder {
  recorder.on.onData = (input, from, to) => recorder.send(Buffer.from(input.subarray(from, to)));
  return recorder;
}

const TRUSTING = { ca: authority.text, servername: "localhost", host: "127.0.0.1" } as const;

export interface SecurePeer extends Peer {
  readonly socket: TLSSocket;
}

/** A node:tls client, at once: the handshake may yet fail. */
export function beginPeer(t: TestContext, port: number, options: ConnectionOptions = {}): SecurePeer {
  const all = { ...TRUSTING, port, allowHalfOpen: true, ...options };
  const socket = connect(all as ConnectionOptions);
  t.after(() => socket.destroy());
  return new Peer(socket) as SecurePeer;
}

export async function openSecurePeer(
  t: TestContext,
  port: number,
  options: ConnectionOptions = {},
): Promise<SecurePeer> {
  const peer = beginPeer(t, port, options);
  await once(peer.socket, "secureConnect");
  return peer;
}

const isSecured = (recorder: Recorder): boolean => recorder.count("secured") > 0;

export function secured(recorder: Recorder): Promise<true> {
  return until("the handshake", () => {
    if (recorder.errno) throw new Error(recorder.engine.tlsError(recorder.slot, recorder.generation));
    return isSecured(recorder) || undefined;
  });
}

interface PairOptions {
  /** Default: `serverContext()`. */
  readonly context?: TlsContext;
  readonly server?: LoopbackOptions;
  readonly peer?: ConnectionOptions;
}

interface Pair {
  readonly loopback: Loopback;
  readonly peer: SecurePeer;
  /** The engine's end. */
  readonly served: Recorder;
}

/** An engine that secures what it accepts, and a node:tls client of it, when both are through with the handshake. */
export async function openPair(
  t: TestContext,
  { context = serverContext(), server = {}, peer: options = {} }: PairOptions = {},
): Promise<Pair> {
  const loopback = openSecure(t, context, server);
  const peer = await openSecurePeer(t, loopback.port, options);
  const served = await loopback.nth(0);
  await secured(served);
  return { loopback, peer, served };
}

export const tlsOf = (recorder: Recorder) => recorder.engine.tls(recorder.slot, recorder.generation);
export const tlsErrorOf = (recorder: Recorder) => recorder.engine.tlsError(recorder.slot, recorder.generation);

/** A way to `port` that passes each chunk on in pieces: as `cut` says. Returns its own port. */
export async function openCutter(t: TestContext, port: number, cut: (chunk: Buffer) => Buffer[]): Promise<number> {
  const sockets = new Set<Socket>();
  const forward = (from: Socket, to: Socket): void => {
    const queue: Buffer[] = [];
    let ended = false;
    let running = false;
    const next = (): void => {
      const piece = queue.shift();
      running = piece !== undefined;
      if (piece) to.write(piece, () => setImmediate(next));
      else if (ended) to.end();
    };
    from.on("data", (chunk: Buffer) => {
      queue.push(...cut(chunk));
      if (!running) next();
    });
    from.on("end", () => {
      ended = true;
      if (!running) next();
    });
  };
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (near) => {
    const far = plainConnect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => (socket === near ? far : near).destroy());
    }
    forward(near, far);
    forward(far, near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return (server.address() as AddressInfo).port;
}
