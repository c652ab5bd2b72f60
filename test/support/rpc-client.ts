/** A plain TCP client that speaks rpc, for one connection. What the server breaks of the format fails its test. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import {
  type RpcCancel,
  type RpcGoodbye,
  type RpcPayload,
  type RpcReply,
  type RpcRequest,
  rpcClient,
} from "#src/codec/rpc.js";
import { encode, Feeder } from "./splits.js";
import { until, within } from "./until.js";

const LIMIT = 1 << 20;

type Options = Partial<Omit<RpcRequest<RpcPayload>, "kind">>;

/** The bytes of a request, or of a cancel. */
export function rpcBytes(message: RpcRequest<RpcPayload> | RpcCancel): Buffer {
  return encode(rpcClient(), message, LIMIT);
}

export function requestBytes(payload: RpcPayload, options: Options = {}): Buffer {
  return rpcBytes({
    kind: "request",
    id: 1,
    priority: "normal",
    deadlineMs: 0,
    traceparent: undefined,
    payload,
    ...options,
  });
}

/** Replies as text, "id status payload", and "goodbye"s and "last goodbye"s, in the order in which they came. */
export function repliesIn(bytes: Uint8Array): string[] {
  const feeder = new Feeder<RpcReply | RpcGoodbye, unknown>(rpcClient(), LIMIT);
  feeder.push(bytes);
  if (feeder.fault || feeder.left > 0) throw new Error(`not of the format: ${Buffer.from(bytes).toString("hex")}`);
  return feeder.messages.map(textOf);
}

function textOf(message: RpcReply | RpcGoodbye): string {
  if (message.kind === "goodbye") return message.last ? "last goodbye" : "goodbye";
  return `${message.id} ${message.status} ${message.payload.toString()}`;
}

export class RpcClient {
  readonly socket: Socket;
  /** Settles when the connection has ended: an errno, or nothing when it ended in order. */
  readonly closed: Promise<string | undefined>;
  goodbyes = 0;
  /** It was told that nothing more is begun. */
  dismissed = false;
  /** Ids, in the order in which their replies came. */
  readonly order: number[] = [];
  #ended = false;
  #lastId = 0;
  readonly #replies = new Map<number, RpcReply>();
  readonly #feeder = new Feeder<RpcReply | RpcGoodbye, unknown>(rpcClient(), LIMIT);

  constructor(socket: Socket) {
    this.socket = socket;
    let errno: string | undefined;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      errno = error.code;
    });
    this.closed = new Promise((resolve) =>
      socket.once("close", () => {
        this.#ended = true;
        resolve(errno);
      }),
    );
  }

  /** Sends a request and returns its id. */
  send(payload: RpcPayload, options: Options = {}): number {
    const id = options.id ?? ++this.#lastId;
    this.socket.write(requestBytes(payload, { ...options, id }));
    return id;
  }

  cancel(id: number): void {
    this.socket.write(rpcBytes({ kind: "cancel", id }));
  }

  /** Whether the reply has come. */
  has(id: number): boolean {
    return this.#replies.has(id);
  }

  /** The reply as "status payload". */
  async reply(id: number): Promise<string> {
    const reply = await until(`reply ${id}`, () => {
      if (this.#ended && !this.has(id)) throw new Error(`closed instead of reply ${id}`);
      return this.#replies.get(id);
    });
    this.#replies.delete(id);
    return `${reply.status} ${reply.payload.toString()}`.trim();
  }

  /** Sends a request and waits for its reply, "status payload". */
  ask(payload: RpcPayload, options: Options = {}): Promise<string> {
    return this.reply(this.send(payload, options));
  }

  #take(chunk: Buffer): void {
    this.#feeder.push(chunk);
    if (this.#feeder.fault) throw new Error(`the server broke the protocol: ${this.#feeder.fault}`);
    for (const message of this.#feeder.messages.splice(0)) {
      if (this.dismissed) throw new Error("something came after the last goodbye");
      if (message.kind === "goodbye" && message.last) this.dismissed = true;
      else if (message.kind === "goodbye") this.goodbyes += 1;
      else if (this.#replies.has(message.id)) throw new Error(`two replies to ${message.id}`);
      else {
        this.#replies.set(message.id, message);
        this.order.push(message.id);
      }
    }
  }
}

/** Connects; closed when the test ends. */
export async function openRpcClient(t: TestContext, port: number, host = "127.0.0.1"): Promise<RpcClient> {
  const socket = connect({ port, host, noDelay: true });
  t.after(() => socket.destroy());
  const client = new RpcClient(socket);
  await within("a connection", once(socket, "connect"));
  return client;
}
