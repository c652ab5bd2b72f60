/**
 * The control socket's server end. It keeps three bounds, so that no client can hold the primary up: how many are
 * connected, how long one may take, and how long a line is. A client that waits for a stop or a change has no
 * deadline of its own, those have.
 *
 * It serves a descriptor and knows no path: so an upgrade can hand the socket over, and Node, which unlinks what it
 * has bound, never takes the path from a successor. Who makes and unlinks it is src/primary/control-claim.ts.
 */
import { createServer, type Server, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Inspector } from "./inspection.ts";
import { LineCutter } from "./lines.ts";
import { type PeerLookup, trusted } from "./peer.ts";
import {
  type ChangeRequest,
  type ControlFault,
  type ControlReply,
  type ControlRequest,
  fault,
  formatLine,
  type InspectionRequest,
  MAX_REQUEST_BYTES,
  parseRequest,
} from "./protocol.ts";
import type { ServerStatus } from "./status.ts";

/** A change that has begun. */
export interface BegunChange {
  /** Resolves when it is complete, with one line that says what happened; rejects with why it failed. */
  readonly done: Promise<{ readonly message: string }>;
}

export interface ControlHandlers {
  status(): Promise<ServerStatus>;
  /** Begins to stop; the promise resolves when every worker has ended. */
  stop(fast: boolean): Promise<{ closed: number; forced: number }>;
  /**
   * Begins a change. The promise resolves as soon as it is certain that the change is under way, within a second or
   * so: a client that does not wait for its end waits for that. Rejects with `busy` when another one is, with
   * `change-refused` when the request makes no sense here, with anything else when it failed at once.
   */
  change(request: ChangeRequest): Promise<BegunChange>;
  /** Looks at connections and profiles. */
  readonly inspect?: Inspector;
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
/** Without progress in sending a profile. */
const SEND_MS = 30_000;
export class ControlServer {
  /** The listening socket, to be handed to a successor; closed by `stopAccepting` and `close`. */
  readonly descriptor: number;
  readonly #options: ControlServerOptions;
  readonly #server: Server;
  readonly #clients: Set<Socket> = new Set();

  private constructor(descriptor: number, options: ControlServerOptions) {
    this.descriptor = descriptor;
    this.#options = options;
    // Without allowHalfOpen a client that sends its request and half-closes would lose the reply.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#welcome(socket));
  }

  /** Serves `descriptor`, a listening unix socket, new or inherited: the server's own once this resolves. */
  static listen(descriptor: number, options: ControlServerOptions): Promise<ControlServer> {
    const control = new ControlServer(descriptor, options);
    return new Promise((resolve, reject) => {
      const server = control.#server;
      server.once("error", reject);
      server.once("listening", () => {
        server.off("error", reject);
        // Running out of descriptors must not end the primary: the client sees its connection refused.
        server.on("error", () => {});
        resolve(control);
      });
      server.listen({ fd: descriptor });
    });
  }

  /** Stops listening, here: a successor that has the socket goes on. Clients that wait for an answer still get it. */
  stopAccepting(): void {
    this.#server.close();
  }

  /** Drops every client and stops listening. */
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
    else answer(socket, request, handlers).catch((error) => hangUp(socket, faultOf(error)));
  });
}

function faultOf(error: unknown): ControlFault {
  const code = error instanceof HeadraceError ? error.code : undefined;
  if (code === "busy") return fault("busy", messageOf(error));
  const refused = code === "change-refused" || code === "not-found";
  return fault(refused ? "refused" : "failed", messageOf(error));
}

async function answer(socket: Socket, request: ControlRequest, handlers: ControlHandlers): Promise<void> {
  if (request.type === "status") hangUp(socket, { type: "status", status: await handlers.status() });
  else if (request.type === "stop") await stop(socket, request, handlers);
  else if (isInspection(request)) await inspect(socket, request, handlers.inspect);
  else hangUp(socket, await changed(request, handlers));
}

const INSPECTIONS: ReadonlySet<ControlRequest["type"]> = new Set([
  "connections",
  "kill",
  "closed",
  "profile",
  "log-level",
  "metrics",
]);

function isInspection(request: ControlRequest): request is InspectionRequest {
  return INSPECTIONS.has(request.type);
}

async function inspect(socket: Socket, request: InspectionRequest, inspector: Inspector | undefined): Promise<void> {
  if (!inspector) throw new HeadraceError("change-refused", `${request.type} is not to be had here`);
  if (request.type === "profile") await sendProfile(socket, request, inspector);
  else hangUp(socket, await inspected(request, inspector));
}

async function inspected(
  request: Exclude<InspectionRequest, { type: "profile" }>,
  inspector: Inspector,
): Promise<ControlReply> {
  switch (request.type) {
    case "connections":
      return { type: "connections", page: await inspector.connections(request) };
    case "kill":
      await inspector.kill(request.id);
      return { type: "done", message: `connection ${request.id} was reset` };
    case "closed":
      return { type: "closed", rows: await inspector.closed(request.limit) };
    case "log-level":
      if (request.level !== undefined) await inspector.setLogLevel(request.level);
      return { type: "log-level", level: inspector.logLevel() };
    case "metrics":
      return { type: "metrics", ...(await inspector.metrics()) };
  }
}

/** A client that goes ends the profile; one that does not read is cut off with it. */
async function sendProfile(
  socket: Socket,
  request: Extract<InspectionRequest, { type: "profile" }>,
  inspector: Inspector,
): Promise<void> {
  const gone = new AbortController();
  socket.once("close", () => gone.abort());
  const { name, bytes, content } = await inspector.profile(request, gone.signal);
  if (socket.destroyed) {
    content.destroy();
    return;
  }
  socket.setTimeout(SEND_MS, () => socket.destroy());
  socket.write(formatLine({ type: "profile", name, bytes }));
  await pipeline(content, socket).catch(() => socket.destroy());
}

async function stop(
  socket: Socket,
  { fast, wait }: Extract<ControlRequest, { type: "stop" }>,
  handlers: ControlHandlers,
): Promise<void> {
  const stopped = handlers.stop(fast);
  if (!wait) {
    hangUp(socket, { type: "stopping" });
    return;
  }
  socket.write(formatLine({ type: "stopping" }));
  // Not closed here: the end of this process closes it, and tells the client that it has really gone.
  socket.write(formatLine({ type: "stopped", ...(await stopped) }));
}

async function changed(request: ChangeRequest, handlers: ControlHandlers): Promise<ControlReply> {
  const { done } = await handlers.change(request);
  if (request.wait) return { type: "done", message: (await done).message };
  // Nobody waits here: the log and `status` tell how it ended.
  done.catch(() => {});
  return { type: "started" };
}
