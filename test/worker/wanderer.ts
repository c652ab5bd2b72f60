/**
 * A service whose replies give every loss away, and what they must be. Messages are commands; each reply begins with
 * the number of the message on its connection, which is state, and long replies are a pattern by position.
 */
import type { Codec } from "#src/codec/codec.js";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import type { Connection } from "#src/service/connection.js";
import { type Concurrency, defineService, type Service } from "#src/service/define.js";

/** `echo`: at once. `later`: after so many ms. `stream`: so many bytes, as fast as they go. `pause`: reads rest. */
export type Command =
  | { readonly kind: "echo"; readonly text: string }
  | { readonly kind: "later"; readonly ms: number }
  | { readonly kind: "stream"; readonly bytes: number }
  | { readonly kind: "pause" }
  /** Over the limit: dropped where the codec discards. */
  | { readonly kind: "oversized"; readonly bytes: number };

export type CodecName = "line" | "frame";

interface State {
  messages: number;
  /** The stream under way: sent and wanted bytes. */
  sent: number;
  wanted: number;
  paused: boolean;
}

type Bytes = string | Uint8Array;
type Held = Connection<State, Bytes>;

export const FRAME_LIMIT = 4_096;
const CHUNK = 1_000;
const PAUSE_MS = 3;

function pattern(from: number, to: number): string {
  return Array.from({ length: to - from }, (_, i) => String.fromCharCode(97 + ((from + i) % 23))).join("");
}

/** Sends on until the peer is slow; `onWritable` calls it again. */
function pump(connection: Held): void {
  const { state } = connection;
  while (state.sent < state.wanted) {
    const to = Math.min(state.wanted, state.sent + CHUNK);
    const result = connection.send(pattern(state.sent, to));
    if (result === "refused" || result === "closed") return;
    state.sent = to;
    if (result === "slow") return;
  }
}

function rest(connection: Held): void {
  connection.state.paused = true;
  connection.pauseReads();
  setTimeout(() => {
    // Elsewhere by now, where `resume` sees to it; or on the way, and perhaps back soon.
    if (!connection.closed) connection.state.paused = false;
    connection.resumeReads();
  }, PAUSE_MS);
}

export interface Wanderer {
  readonly service: Service<State, Buffer, Bytes, undefined>;
  /** Which `resume` calls throw. */
  refuse: () => boolean;
  refused: number;
}

/** `own`: with `suspend` and `resume`; else the state is cloned. */
export function wanderer(codecName: CodecName, concurrency: Concurrency, own: boolean): Wanderer {
  const made = { refuse: () => false, refused: 0 } as { -readonly [Name in keyof Wanderer]: Wanderer[Name] };
  const codec: Codec<Buffer, Bytes> = codecName === "line" ? line({ as: "bytes", onOversize: "discard" }) : frame();
  const resume = (connection: Held): void => {
    if (made.refuse()) {
      made.refused += 1;
      throw new Error("refused on purpose");
    }
    if (connection.state.paused) rest(connection);
  };
  made.service = defineService<Buffer, Bytes, State, undefined>({
    codec,
    concurrency,
    limits: { frame: FRAME_LIMIT, inFlight: 4, highWater: 5_000, lowWater: 2_000, buffered: 100_000_000 },
    timeouts: { idle: "off", firstByte: "off", frame: "off", writeStall: "off" },
    state: () => ({ messages: 0, sent: 0, wanted: 0, paused: false }),
    ...(own
      ? {
          suspend: ({ state }) => Buffer.from(JSON.stringify(state)),
          resume(connection, bytes) {
            Object.assign(connection.state, JSON.parse(Buffer.from(bytes).toString()));
            resume(connection);
          },
        }
      : { resume }),
    onMessage(message, { connection }) {
      const { state } = connection;
      const number = ++state.messages;
      const [kind, argument = ""] = message.toString().split(":");
      switch (kind) {
        case "later":
          return new Promise((done) => setTimeout(() => done(`${number} later`), Number(argument)));
        case "stream":
          state.sent = 0;
          state.wanted = Number(argument);
          pump(connection);
          return undefined;
        case "pause":
          rest(connection);
          return `${number} pause`;
        default:
          return `${number} ${argument}`;
      }
    },
    onWritable: pump,
  });
  return made;
}

function wrap(codec: CodecName, text: string): Buffer {
  if (codec === "line") return Buffer.from(`${text}\n`);
  const bytes = Buffer.alloc(4 + text.length);
  bytes.writeUInt32BE(text.length);
  bytes.write(text, 4);
  return bytes;
}

export function encodeCommand(codec: CodecName, command: Command): Buffer {
  switch (command.kind) {
    case "echo":
      return wrap(codec, `echo:${command.text}`);
    case "later":
      return wrap(codec, `later:${command.ms}`);
    case "stream":
      return wrap(codec, `stream:${command.bytes}`);
    case "pause":
      return wrap(codec, "pause");
    case "oversized":
      return wrap(codec, "z".repeat(command.bytes));
  }
}

/** What the peer must receive, reply by reply. */
export function expectedReplies(codec: CodecName, commands: readonly Command[]): Buffer[] {
  const replies: Buffer[] = [];
  let number = 0;
  for (const command of commands) {
    if (command.kind === "oversized") continue;
    number += 1;
    if (command.kind === "stream") {
      for (let at = 0; at < command.bytes; at += CHUNK) {
        replies.push(wrap(codec, pattern(at, Math.min(command.bytes, at + CHUNK))));
      }
    } else {
      replies.push(wrap(codec, `${number} ${command.kind === "echo" ? command.text : command.kind}`));
    }
  }
  return replies;
}

/** What was received, reply by reply. */
export function cutReplies(codec: CodecName, bytes: Buffer): Buffer[] {
  const replies: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = codec === "line" ? bytes.indexOf("\n", at) + 1 : at + 4 + bytes.readUInt32BE(at);
    replies.push(bytes.subarray(at, end || bytes.length));
    at = end || bytes.length;
  }
  return replies;
}
