/**
 * rpc: requests and replies on one connection, told apart by ids. `rpc()` is the server's side of it, `rpcClient()`
 * the client's. All numbers are big-endian.
 *
 *     bytes  field     what it holds
 *     0-3    length    bytes that follow: 12, and 26 when traced, and the payload
 *     4      kind      1 request (client), 2 reply (server), 3 cancel (client), 4 goodbye (server)
 *     5      flags     bit 0 (requests only): a trace context stands before the payload; the other bits are 0
 *     6      grade     request: priority (0 normal, 1 high, 2 low)
 *                      reply: status (0 ok, 1 error, 2 busy, 3 deadline)
 *                      goodbye: 1 in the server's last frame; else 0
 *     7      reserved  0
 *     8-11   id        of the request; the client chooses it, and no two in flight may have the same. Goodbye: 0
 *     12-15  deadline  request: ms that are left for it, as the client sends it; 0: no deadline. Else 0
 *     16-41  trace     only when traced: W3C trace context (version, 16 trace id, 8 parent id, flags)
 *     …      payload   request and reply only, also empty; at most `limits.frame`
 *
 * A request gets one reply; its payload is the service's (ok), or text in UTF-8 that says what is wrong. A request that
 * is cancelled gets none, unless that was on its way. After a goodbye the client sends no more requests here, and what it
 * has sent is answered. A server that ends the connection by itself, in order, says goodbye once more, as its last frame
 * (grade 1): a request that has no reply by then was never begun. No other end proves that; FIN comes of a kill too.
 *
 * Anything else is a protocol error: `frame-empty` for a length of 0, `frame-too-large` for a payload over the limit,
 * `protocol-error` for the rest, all of them known before the payload is there.
 */
import type { ProtocolFault } from "../base/reasons.ts";
import { borrowedFrame, ownedFrame } from "./bytes.ts";
import { type Borrowed, type Codec, type Cursor, INVALID, NEED_MORE } from "./codec.ts";
import {
  cannotSend,
  deadlineAt,
  gradeAt,
  gradeOf,
  HEADER_BYTES,
  idAt,
  isHeader,
  isTraced,
  KIND,
  type Kind,
  kindAt,
  LAST,
  LEAST_LENGTH,
  LENGTH_BYTES,
  MOST_OVERHEAD,
  RPC_PRIORITIES,
  RPC_STATUSES,
  type RpcPriority,
  type RpcStatus,
  readU32,
  TRACED,
  wireDeadline,
  writeHeader,
  writeU32,
} from "./rpc-header.ts";
import { encodePayload, payloadBytesAtMost } from "./text.ts";
import { digitsOf, TRACE_BYTES, traceparentOf } from "./trace-context.ts";

export interface RpcOptions {
  /** Payloads. `bytes` (default): each is a Buffer of its own. `borrowed`: valid until the handler returns. */
  readonly as?: "bytes" | "borrowed";
}

/** What can be sent. */
export type RpcPayload = string | Uint8Array;

export interface RpcRequest<Payload = Buffer> {
  readonly kind: "request";
  /** 0 to 2^32 - 1; of its client's choice. */
  readonly id: number;
  readonly priority: RpcPriority;
  /** Milliseconds that were left when it was sent; 0: it has no deadline. */
  readonly deadlineMs: number;
  /** W3C trace context, as text. What is not valid is neither sent nor received. */
  readonly traceparent: string | undefined;
  readonly payload: Payload;
}

export interface RpcReply<Payload = Buffer> {
  readonly kind: "reply";
  readonly id: number;
  readonly status: RpcStatus;
  readonly payload: Payload;
}

/** The client wants no reply any more. */
export interface RpcCancel {
  readonly kind: "cancel";
  readonly id: number;
}

/** The server wants no more requests on this connection. */
export interface RpcGoodbye {
  readonly kind: "goodbye";
  /** It sends nothing after this, and has begun nothing that has no reply. */
  readonly last?: true;
}

export const GOODBYE: RpcGoodbye = { kind: "goodbye" };
export const LAST_GOODBYE: RpcGoodbye = { kind: "goodbye", last: true };

type Message = RpcRequest<RpcPayload> | RpcReply<RpcPayload> | RpcCancel | RpcGoodbye;
type Take<Payload> = (bytes: Buffer, from: number, to: number) => Payload;

class ReceivedRequest<Payload> implements RpcRequest<Payload> {
  readonly kind = "request";
  readonly id: number;
  readonly priority: RpcPriority;
  readonly deadlineMs: number;
  readonly payload: Payload;
  /** In hexadecimal. */
  readonly #trace: string | undefined;

  constructor(id: number, priority: RpcPriority, deadlineMs: number, trace: string | undefined, payload: Payload) {
    this.id = id;
    this.priority = priority;
    this.deadlineMs = deadlineMs;
    this.#trace = trace;
    this.payload = payload;
  }

  get traceparent(): string | undefined {
    return this.#trace === undefined ? undefined : traceparentOf(this.#trace);
  }
}

/** Makes the message of a frame that is all there, and is for this side. */
type Read<In> = (bytes: Buffer, from: number, to: number) => In;

function readRequest<Payload>(take: Take<Payload>): Read<RpcRequest<Payload> | RpcCancel> {
  return (bytes, from, to) => {
    const id = idAt(bytes, from);
    if (kindAt(bytes, from) === KIND.cancel) return { kind: "cancel", id };
    const priority = RPC_PRIORITIES[gradeAt(bytes, from)] as RpcPriority;
    let start = from + HEADER_BYTES;
    let trace: string | undefined;
    if (isTraced(bytes, from)) {
      trace = bytes.toString("hex", start, start + TRACE_BYTES);
      start += TRACE_BYTES;
    }
    return new ReceivedRequest(id, priority, deadlineAt(bytes, from), trace, take(bytes, start, to));
  };
}

function readReply<Payload>(take: Take<Payload>): Read<RpcReply<Payload> | RpcGoodbye> {
  return (bytes, from, to) => {
    if (kindAt(bytes, from) === KIND.goodbye) return gradeAt(bytes, from) === LAST ? LAST_GOODBYE : GOODBYE;
    const status = RPC_STATUSES[gradeAt(bytes, from)] as RpcStatus;
    return { kind: "reply", id: idAt(bytes, from), status, payload: take(bytes, from + HEADER_BYTES, to) };
  };
}

class RpcCodec<In, Out extends Message> implements Codec<In, Out> {
  readonly name = "rpc";
  readonly borrowed: boolean;
  message: In = undefined as In;
  fault: ProtocolFault = "protocol-error";
  readonly #first: Kind;
  readonly #second: Kind;
  readonly #read: Read<In>;

  /** `first`, `second`: the kinds that this side receives. */
  constructor(first: Kind, second: Kind, read: Read<In>, borrowed: boolean) {
    this.#first = first;
    this.#second = second;
    this.#read = read;
    this.borrowed = borrowed;
  }

  decode(bytes: Buffer, from: number, to: number, _cursor: Cursor, maxFrameBytes: number): number {
    if (to - from < LENGTH_BYTES) return NEED_MORE;
    const length = readU32(bytes, from);
    if (length < LEAST_LENGTH) return this.#blame(length === 0 ? "frame-empty" : "protocol-error");
    if (length > maxFrameBytes + MOST_OVERHEAD) return this.#blame("frame-too-large");
    if (to - from < HEADER_BYTES) return NEED_MORE;
    const kind = kindAt(bytes, from);
    if (!isHeader(bytes, from, length) || (kind !== this.#first && kind !== this.#second)) {
      return this.#blame("protocol-error");
    }
    const overhead = isTraced(bytes, from) ? MOST_OVERHEAD : LEAST_LENGTH;
    if (length - overhead > maxFrameBytes) return this.#blame("frame-too-large");
    const size = LENGTH_BYTES + length;
    if (to - from < size) return NEED_MORE;
    this.message = this.#read(bytes, from, from + size);
    return size;
  }

  sizeOf(message: Out): number {
    if (message.kind === "cancel" || message.kind === "goodbye") return HEADER_BYTES;
    const overhead = message.kind === "request" ? HEADER_BYTES + TRACE_BYTES : HEADER_BYTES;
    return overhead + payloadBytesAtMost("rpc", message.payload);
  }

  encodeInto(message: Out, target: Buffer, at: number, maxFrameBytes: number): number {
    const start = at + HEADER_BYTES;
    let end = start;
    switch (message.kind) {
      case "reply": {
        writeHeader(target, at, KIND.reply, 0, gradeOf(RPC_STATUSES, "a status", message.status), message.id, 0);
        end += encodePayload("rpc", message.payload, target, start, maxFrameBytes);
        break;
      }
      case "request": {
        const digits = message.traceparent === undefined ? undefined : digitsOf(message.traceparent);
        const grade = gradeOf(RPC_PRIORITIES, "a priority", message.priority);
        const deadline = wireDeadline(message.deadlineMs);
        writeHeader(target, at, KIND.request, digits === undefined ? 0 : TRACED, grade, message.id, deadline);
        if (digits !== undefined) end += target.write(digits, end, "hex");
        end += encodePayload("rpc", message.payload, target, end, maxFrameBytes);
        break;
      }
      case "cancel":
        writeHeader(target, at, KIND.cancel, 0, 0, message.id, 0);
        break;
      case "goodbye":
        writeHeader(target, at, KIND.goodbye, 0, message.last ? LAST : 0, 0, 0);
        break;
      default:
        throw cannotSend("a kind", (message as Partial<Message>)?.kind, "request, reply, cancel, goodbye");
    }
    writeU32(end - at - LENGTH_BYTES, target, at);
    return end - at;
  }

  #blame(fault: ProtocolFault): number {
    this.fault = fault;
    return INVALID;
  }
}

type ServerCodec<Payload> = Codec<RpcRequest<Payload> | RpcCancel, RpcReply<RpcPayload> | RpcGoodbye>;
type ClientCodec<Payload> = Codec<RpcReply<Payload> | RpcGoodbye, RpcRequest<RpcPayload> | RpcCancel>;

export function rpc(options: RpcOptions & { readonly as: "borrowed" }): ServerCodec<Borrowed>;
export function rpc(options?: RpcOptions & { readonly as?: "bytes" }): ServerCodec<Buffer>;
/** The server's side: takes requests and cancels, sends replies and goodbyes. */
export function rpc(options: RpcOptions = {}): ServerCodec<Buffer> {
  const borrowed = options.as === "borrowed";
  const take: Take<Buffer> = borrowed ? borrowedFrame : ownedFrame;
  return new RpcCodec(KIND.request, KIND.cancel, readRequest(take), borrowed);
}

export function rpcClient(options: RpcOptions & { readonly as: "borrowed" }): ClientCodec<Borrowed>;
export function rpcClient(options?: RpcOptions & { readonly as?: "bytes" }): ClientCodec<Buffer>;
/** The client's side: sends requests and cancels, takes replies and goodbyes. */
export function rpcClient(options: RpcOptions = {}): ClientCodec<Buffer> {
  const borrowed = options.as === "borrowed";
  const take: Take<Buffer> = borrowed ? borrowedFrame : ownedFrame;
  return new RpcCodec(KIND.reply, KIND.goodbye, readReply(take), borrowed);
}
