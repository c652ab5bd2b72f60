/** A server of lines by node:net whose answers the test decides, and what clients see of it: for tests of clients. */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { type Client, defineClient, type PlainClientDefinition, type RpcClientDefinition } from "#src/client/define.js";
import { line } from "#src/codec/line.js";

export interface Downstream {
  readonly server: Server;
  readonly port: number;
  /** "127.0.0.1:port" */
  readonly target: string;
  /** Connections so far, in order; those that have ended too. */
  readonly sockets: Socket[];
  /** Lines so far. */
  readonly asked: string[];
  /** Connections that are open. */
  readonly open: number;
}

export type Answer = (text: string, socket: Socket) => void;

/** What most tests want: the line comes back. */
export const echo: Answer = (text, socket) => {
  socket.write(`${text}\n`);
};

/** Gone when the test ends. */
export async function openDownstream(
  t: TestContext,
  answer: Answer = echo,
  { port = 0, host = "127.0.0.1" } = {},
): Promise<Downstream> {
  const sockets: Socket[] = [];
  const asked: string[] = [];
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    createInterface(socket)
      .on("line", (text) => {
        asked.push(text);
        answer(text, socket);
      })
      .on("error", () => {});
  });
  server.listen(port, host);
  await once(server, "listening");
  t.after(() => stop({ server, sockets }));
  const { port: bound } = server.address() as { port: number };
  return {
    server,
    port: bound,
    target: `127.0.0.1:${bound}`,
    sockets,
    asked,
    get open() {
      return sockets.filter((socket) => !socket.destroyed).length;
    },
  };
}

/** Refuses everybody from now on. */
export function stop({ server, sockets }: Pick<Downstream, "server" | "sockets">): Promise<void> {
  for (const socket of sockets) socket.destroy();
  return new Promise((resolve) => server.close(() => resolve()));
}

export type LineClientOptions = Omit<PlainClientDefinition<string, string>, "name" | "codec">;

/** A client of lines; closed when the test ends. */
export function lineClient(t: TestContext, options: LineClientOptions): Client<string | Uint8Array, string> {
  const client = defineClient({ name: "test", codec: line(), ...options });
  t.after(() => client.close(0));
  return client;
}

export function rpcClientOf(
  t: TestContext,
  options: Omit<RpcClientDefinition, "name" | "rpc">,
): Client<string | Uint8Array, Buffer> {
  const client = defineClient({ name: "test", rpc: true, ...options });
  t.after(() => client.close(0));
  return client;
}

/** The code of the error that a call rejects with; "answered" when it does not. */
export function outcomeOf(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => "answered",
    (error: { readonly code?: string; readonly name?: string }) => error.code ?? error.name ?? "error",
  );
}

/** A port of 127.0.0.1 on which nobody listens. */
export async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
