/**
 * The control socket's server end. It keeps three bounds, so that no client can hold the primary up: how many are
 * connected, how long one may take, and how long a line is. A client that waits for a stop has no deadline of
 * its own, the stop has. The caller decides where the path is and who unlinks it (src/primary/control-claim.ts).
 */
import { createServer, type Server, type Socket } from "node:net";
import { messageOf } from "../base/errors.ts";
import { LineCutter } from "./lines.ts";
import { type PeerLookup, trusted } from "./peer.ts";
import {
  type ControlReply,
  type ControlRequest,
  fault,
  formatLine,
  MAX_REQUEST_BYTES,
  parseRequest,
} from "./protocol.ts";
import type { ServerStatus } from "./status.ts";

export interface ControlHandlers {
  status(): Promise<ServerStatus>;
  /** Begins to stop; the promise resolves when every worker has ended. */
  stop(fast: boolean): Promise<{ closed: number; forced: number }>;
}

export interface ControlServerOptions {
  readonly handlers: ControlHandlers;
  readonly peerOf: PeerLookup;
  /** Own user. */
  readonly uid: number;
  /** Default 16. */
  readonly maxClients?: number;
  /** From connecting to a complete request. Default 10 s. */
  readonly deadlineMs?: number;
}

const MAX_CLIENTS = 16;
const DEADLINE_MS = 10_000;
const HANG_UP_MS = 1_000;
/** The socket is for its owner only (0600), from the moment it exists. */
const OWNER_ONLY_UMASK = 0o177;

export class ControlServer {
  readonly #options: ControlServerOptions;
  readonly #server: Server;
  readonly #clients: Set<Socket> = new Set();

  private constructor(options: ControlServerOptions) {
    this.#options = options;
    // Without allowHalfOpen a client that sends its request and half-closes would lose the reply.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#welcome(socket));
  }

  /** Listens on `path`, which must not exist. */
  static listen(path: string, options: ControlServerOptions): Promise<ControlServer> {
    const control = new ControlServer(options);
    return new Promise((resolve, reject) => {
      const server = control.#server;
      server.once("error", reject);
      server.once("listening", () => {
        server.off("error", reject);
        // Running out of descriptors must not end the primary: the client sees its connection refused.
        server.on("error", () => {});
        resolve(control);
      });
      const umask = process.umask(OWNER_ONLY_UMASK);
      try {
        server.listen(path);
      } finally {
        process.umask(umask);
      }
    });
  }

  /** Drops every client and stops listening; Node unlinks the path. */
  close(): Promise<void> {
    for (const socket of this.#clients) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #welcome(socket: Socket): void {
    const { handlers, peerOf, uid, maxClients = MAX_CLIENTS, deadlineMs = DEADLINE_MS } = this.#options;
    socket.on("error", () => socket.destroy());
    const peer = peerOf(socket);
    if (!peer || !trusted(peer.uid, uid)) {
      hangUp(socket, fault("refused", "only the server's own user and root may use this socket"));
    } else if (this.#clients.size >= maxClients) {
      hangUp(socket, fault("busy", `${maxClients} control clients are connected already; try again`));
    } else {
      this.#clients.add(socket);
      socket.once("close", () => this.#clients.delete(socket));
      serve(socket, handlers, deadlineMs);
    }
  }
}

/** Says the last thing, and leaves the client a moment to read it before it is cut off. */
function hangUp(socket: Socket, reply: ControlReply): void {
  if (socket.destroyed) return;
  const cut = setTimeout(() => socket.destroy(), HANG_UP_MS);
  socket.once("close", () => clearTimeout(cut));
  socket.removeAllListeners("data").resume();
  socket.end(formatLine(reply));
}

/** One client, one request. */
function serve(socket: Socket, handlers: ControlHandlers, deadlineMs: number): void {
  const cutter = new LineCutter(MAX_REQUEST_BYTES);
  const late = setTimeout(() => hangUp(socket, fault("timeout", `no request in ${deadlineMs} ms`)), deadlineMs);
  socket.once("close", () => clearTimeout(late));
  const left = (): void => void socket.destroy();
  socket.once("end", left);
  socket.on("data", (chunk) => {
    const { lines, overflow } = cutter.push(chunk);
    const [line] = lines;
    if (line === undefined && !overflow) return;
    clearTimeout(late);
    // From here on the client may close its end and still wait for the answer.
    socket.off("end", left);
    socket.removeAllListeners("data").resume();
    const request =
      line === undefined ? fault("too-long", `a request has at most ${MAX_REQUEST_BYTES} bytes`) : parseRequest(line);
    if (request.type === "error") hangUp(socket, request);
    else answer(socket, request, handlers).catch((error) => hangUp(socket, fault("failed", messageOf(error))));
  });
}

async function answer(socket: Socket, request: ControlRequest, handlers: ControlHandlers): Promise<void> {
  if (request.type === "status") {
    hangUp(socket, { type: "status", status: await handlers.status() });
    return;
  }
  const stopped = handlers.stop(request.fast);
  if (!request.wait) {
    hangUp(socket, { type: "stopping" });
    return;
  }
  socket.write(formatLine({ type: "stopping" }));
  // Not closed here: the end of this process closes it, and tells the client that it has really gone.
  socket.write(formatLine({ type: "stopped", ...(await stopped) }));
}
