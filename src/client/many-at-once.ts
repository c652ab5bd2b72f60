/**
 * An exchange over rpc (src/codec/rpc.ts): many calls on one connection, told apart by ids that are never used twice. So a
 * reply that comes when its caller has given up is known for what it is: late, and nobody else's.
 */
import { DeadlineExceeded, RemoteError, ServerBusy } from "../base/errors.ts";
import type { Codec } from "../codec/codec.ts";
import { type RpcGoodbye, type RpcReply, rpcClient } from "../codec/rpc.ts";
import type { Call } from "./call.ts";
import type { Exchange, Line } from "./exchange.ts";

const RPC_CODEC: Codec<unknown, unknown> = rpcClient() as Codec<unknown, never>;

/** The largest that the format carries. */
const LAST_ID: number = 2 ** 32 - 1;

export class ManyAtOnce implements Exchange {
  readonly codec: typeof RPC_CODEC = RPC_CODEC;
  readonly capacity: number;
  readonly #calls = new Map<number, Call>();
  #lastId = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get inFlight(): number {
    return this.#calls.size;
  }

  get usedUp(): boolean {
    return this.#lastId === LAST_ID;
  }

  begin(call: Call, leftMs: number, line: Line): void {
    const { priority = "normal", traceparent } = call.options;
    const id = this.#lastId + 1;
    line.write({ kind: "request", id, priority, deadlineMs: leftMs, traceparent, payload: call.message });
    this.#lastId = id;
    call.id = id;
    this.#calls.set(id, call);
  }

  take(message: unknown, line: Line): boolean {
    const reply = message as RpcReply | RpcGoodbye;
    if (reply.kind === "goodbye") {
      line.goodbye(reply.last === true);
      return true;
    }
    const call = this.#calls.get(reply.id);
    if (!call) {
      if (reply.id === 0 || reply.id > this.#lastId) return false;
      line.late();
      return true;
    }
    this.#calls.delete(reply.id);
    answer(call, reply, line);
    return true;
  }

  giveUp(call: Call, line: Line): boolean {
    this.#calls.delete(call.id);
    line.write({ kind: "cancel", id: call.id });
    return true;
  }

  abandon(): Call[] {
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    return calls;
  }
}

/** What the server says when it has nothing to say. */
const SILENT = { error: "the request failed", busy: "too busy", deadline: "not done in time" } as const;

function answer(call: Call, { status, payload }: RpcReply, line: Line): void {
  if (status === "ok") {
    line.answered(call, "ok", payload);
    return;
  }
  const said = payload.length > 0 ? payload.toString("utf8") : SILENT[status];
  const text = `${line.address} says: ${said}`;
  if (status === "busy") line.answered(call, "remote-busy", new ServerBusy("remote", text));
  else if (status === "deadline") line.answered(call, "remote-deadline", new DeadlineExceeded(text));
  else line.answered(call, "remote-error", new RemoteError(said, { address: line.address }));
}
