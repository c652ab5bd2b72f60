/** Servers in the test process for a load to run against: an echo, and echoes that misbehave in one way. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { LoadOptions } from "#src/load/options.js";
import type { LoadResult } from "#src/load/result.js";
import { type LoadListener, runLoad } from "#src/load/run.js";

export interface Peer {
  readonly port: number;
  readonly server: Server;
  /** Connections accepted so far. */
  accepted: number;
  /** Open now. */
  readonly sockets: Set<Socket>;
  close(): Promise<void>;
}

/** What to do with a message: its bytes, its number on the connection (from 0), the connection's number (from 0). */
export type Answer = (socket: Socket, message: Buffer, index: number, connection: number) => void;

export const echo: Answer = (socket, message) => void socket.write(message);

/** Serves messages of exactly `size` bytes. */
export async function startPeer(size: number, answer: Answer = echo): Promise<Peer> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    const connection = peer.accepted++;
    let rest: Buffer = Buffer.alloc(0);
    let index = 0;
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (bytes) => {
      rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
      for (; rest.length >= size; rest = rest.subarray(size))
        answer(socket, rest.subarray(0, size), index++, connection);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const peer: Peer = {
    port: (server.address() as AddressInfo).port,
    server,
    accepted: 0,
    sockets,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
  return peer;
}

const SHORT: Omit<LoadOptions, "port"> = {
  host: "127.0.0.1",
  codec: "line",
  sizeBytes: 64,
  tls: "off",
  mode: "closed",
  connections: 4,
  pipeline: 1,
  close: "finish",
  warmupMs: 0,
  durationMs: 300,
  timeoutMs: 1_000,
  sources: [],
  processes: 1,
};

/** Runs a short load against `port` of this machine, to its end. */
export async function load(
  port: number,
  options: Partial<LoadOptions> = {},
  listener: LoadListener = {},
  early?: AbortSignal,
): Promise<LoadResult> {
  const { result, leave } = await runLoad({ ...SHORT, port, ...options }, listener, early);
  await leave();
  return result;
}

/** The same against a peer of its own that answers so. */
export async function loadAgainst(answer: Answer, options: Partial<LoadOptions> = {}): Promise<LoadResult> {
  const peer = await startPeer(options.sizeBytes ?? SHORT.sizeBytes, answer);
  try {
    return await load(peer.port, options);
  } finally {
    await peer.close();
  }
}
