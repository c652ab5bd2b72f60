/**
 * What a request's context knows of clients (src/client makes them): enough to ask one of them within the time that is
 * left for the request, and to give the call up with it.
 */
import type { Priority } from "../tasks/queue.ts";

export interface CallOptions {
  /** Milliseconds for everything: waiting, connecting, the reply. Default: the client's `timeouts.call`. */
  readonly timeoutMs?: number;
  /** Gives the call up; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** rpc only: what the server makes of it is its own. Default: normal. */
  readonly priority?: Priority;
  /** rpc only: W3C trace context. */
  readonly traceparent?: string;
  /** Asking twice does no harm: when its connection is lost it may be sent again, if the client has `retries`. */
  readonly idempotent?: boolean;
}

/** What `context.call` takes beside the message. */
export interface DownstreamOptions extends Omit<CallOptions, "timeoutMs"> {
  /** At most so many of the milliseconds that are left for the request. */
  readonly atMostMs?: number;
}

/** Something that is given up with the request it belongs to. */
export interface Cancellable {
  cancel(error: unknown): void;
}

export const BEGIN_CALL: unique symbol = Symbol.for("headrace.client.call.1");

/** A client, as the context sees it; also one of another copy of this package. */
export interface Callable<Out, In> {
  readonly name: string;
  /** As `call`, within `leftMs`; until it ends it stands in `held`, whose owner may cancel it. */
  [BEGIN_CALL](message: Out, options: CallOptions, leftMs: number, held?: Set<Cancellable>): Promise<In>;
}
