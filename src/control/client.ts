/**
 * The control socket's client end, for the commands: one connection, one request, its replies. Every way in which
 * it can fail becomes one sentence that says what to do.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { Writable } from "node:stream";
import { HeadraceError } from "../base/errors.ts";
import { LineCutter } from "./lines.ts";
import { type PeerLookup, trusted } from "./peer.ts";
import {
  type ChangeRequest,
  type ControlFault,
  type ControlReply,
  type ControlRequest,
  formatLine,
  MAX_REPLY_BYTES,
  parseReply,
} from "./protocol.ts";

export interface ControlClientOptions {
  readonly path: string;
  readonly peerOf: PeerLookup;
  /** Own user. */
  readonly uid: number;
  /** The user named the path: then root may talk to anybody's server. At a default path it could be an impostor's. */
  readonly named?: boolean;
  /** Until the first reply, but for that to a change which is waited for: it comes when the change is over. Default 10 s. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;

function unreachable(path: string, error: NodeJS.ErrnoException): HeadraceError {
  const errno = error.code ?? "unknown";
  const fields = { file: path, errno };
  if (errno === "EACCES") {
    return new HeadraceError(
      "control-refused",
      `${path} belongs to another user; run this as its owner or root`,
      fields,
    );
  }
  const hint = "is the server running? If it has a control socket elsewhere, pass --control PATH";
  const what = errno === "ENOENT" ? "does not exist" : errno === "ECONNREFUSED" ? "has no server behind it" : errno;
  return new HeadraceError("control-unreachable", `no headrace answers at ${path} (${what}): ${hint}`, fields);
}

const CHANGES: ReadonlySet<ControlRequest["type"]> = new Set(["reload", "upgrade", "scale", "drain"]);

function isChange(request: ControlRequest): request is ChangeRequest {
  return CHANGES.has(request.type);
}

/** The server's answer that it will not, or could not, as an error in its own words. */
function refusal(request: ControlRequest, { code, message }: ControlFault, path: string): HeadraceError {
  const fields = { file: path };
  // What failed says so itself; what was refused needs to be told as such.
  if (code === "failed" && isChange(request)) return new HeadraceError("change-failed", message, fields);
  return new HeadraceError(
    code === "busy" ? "busy" : "control-refused",
    `the server at ${path} refused: ${message}`,
    fields,
  );
}

/** Why whoever is at the other end is not to be trusted, if so. */
function strangerAt(socket: Socket, { path, peerOf, uid, named }: ControlClientOptions): string | undefined {
  const peer = peerOf(socket);
  if (peer && (trusted(peer.uid, uid) || (named === true && uid === 0))) return undefined;
  return `${path} is served by user ${peer?.uid ?? "unknown"}: neither you nor root`;
}

/**
 * Sends `request` and resolves with its first reply, or with the second one of a `stop` that waits, once the
 * server has gone. Throws `control-unreachable`, or with the server's own words `busy`, `change-failed` or
 * `control-refused`.
 */
export function requestControl(request: ControlRequest, options: ControlClientOptions): Promise<ControlReply> {
  const { path, timeoutMs = TIMEOUT_MS } = options;
  const twoReplies = request.type === "stop" && request.wait;
  const patient = isChange(request) && request.wait;
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(path);
    const cutter = new LineCutter(MAX_REPLY_BYTES);
    let last: ControlReply | undefined;

    const finish = (error?: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      if (error) reject(error);
      else if (last && (!twoReplies || last.type === "stopped")) resolve(last);
      else reject(new HeadraceError("control-refused", `the server at ${path} went away without an answer`));
    };
    const refuse = (message: string): void => finish(new HeadraceError("control-refused", message, { file: path }));
    const late = (): void => refuse(`the server at ${path} gave no answer in ${timeoutMs} ms`);
    const timer = patient ? undefined : setTimeout(late, timeoutMs);

    socket.once("error", (error: NodeJS.ErrnoException) => finish(last ? undefined : unreachable(path, error)));
    socket.once("connect", () => {
      const stranger = strangerAt(socket, options);
      if (stranger !== undefined) {
        refuse(stranger);
        return;
      }
      socket.write(formatLine(request));
    });
    socket.on("data", (chunk) => {
      const { lines, overflow } = cutter.push(chunk);
      if (overflow) refuse(`the answer of ${path} is too long`);
      for (const line of lines) {
        last = parseReply(line);
        clearTimeout(timer);
        if (last.type === "error") finish(refusal(request, last, path));
        // A waiting stop stays until the server's end closes the socket: only then has the process gone.
        else if (!twoReplies) finish();
      }
    });
    socket.once("close", () => finish());
  });
}

type ProfileAsked = Extract<ControlRequest, { type: "profile" }>;
type ProfileReply = Extract<ControlReply, { type: "profile" }>;

/** Longer than the server may take for anything but the seconds of a CPU profile. */
const PROFILE_MS = 150_000;
const MOST_PROFILE_LINE = 4_096;

/**
 * Has a profile taken and gives its bytes to `sink` as they come, after `onBegin`. Resolves when all were there; throws as
 * `requestControl` does.
 */
export async function requestProfile(
  request: ProfileAsked,
  options: ControlClientOptions,
  onBegin: (reply: ProfileReply) => Writable,
): Promise<void> {
  const { path } = options;
  const socket = connect(path);
  const cut = setTimeout(() => socket.destroy(), request.seconds * 1_000 + PROFILE_MS);
  try {
    await once(socket, "connect").catch((error) => {
      throw unreachable(path, error);
    });
    const stranger = strangerAt(socket, options);
    if (stranger !== undefined) throw new HeadraceError("control-refused", stranger, { file: path });
    socket.write(formatLine(request));
    await receive(socket, request, path, onBegin);
  } finally {
    clearTimeout(cut);
    socket.destroy();
  }
}

/** The line that says what follows, and what follows. */
async function receive(
  socket: Socket,
  request: ProfileAsked,
  path: string,
  onBegin: (reply: ProfileReply) => Writable,
): Promise<void> {
  const short = (): HeadraceError => new HeadraceError("control-refused", `the server at ${path} went away in between`);
  let head: Buffer = Buffer.alloc(0);
  let sink: Writable | undefined;
  let left = 0;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    let bytes = chunk;
    if (!sink) {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf(10);
      if (end < 0 && head.length <= MOST_PROFILE_LINE) continue;
      const reply = parseReply(head.toString("utf8", 0, end));
      if (reply.type === "error") throw refusal(request, reply, path);
      if (reply.type !== "profile") throw short();
      left = reply.bytes;
      sink = onBegin(reply);
      bytes = head.subarray(end + 1);
    }
    left -= bytes.length;
    if (bytes.length > 0 && !sink.write(bytes)) await once(sink, "drain");
  }
  if (!sink || left !== 0) throw short();
}
