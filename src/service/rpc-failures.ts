/**
 * What becomes of an error that an rpc handler did not mean for its client: the client learns nothing of it but that
 * there was one, the log gets all of it. A client can make a handler fail as often as it likes, so the log says so once
 * a second, and how many there were.
 */
import type { Logger } from "../base/log.ts";
import type { RpcPayload } from "../codec/rpc.ts";

const INTERNAL_ERROR = "internal error";
/** Between two lines, ms. */
const SILENCE_MS = 1_000;

/** What is asked of a context. */
interface Logging {
  readonly log: Logger;
}

// biome-ignore lint/suspicious/noConfusingVoidType: a handler without a return statement returns void
type OnError<Ctx> = (error: unknown, context: Ctx) => RpcPayload | undefined | void;

export class FailureLog {
  #silentUntil = 0;
  #unsaid = 0;

  /** The payload of the error reply: what the service's `onError` makes of it, or next to nothing. */
  payloadOf<Ctx extends Logging>(error: unknown, context: Ctx, onError: OnError<Ctx> | undefined): RpcPayload {
    try {
      const payload = onError?.(error, context);
      if (payload !== undefined) return payload;
      this.#say(error, context);
    } catch (second) {
      this.#say(second, context);
    }
    return INTERNAL_ERROR;
  }

  #say(error: unknown, context: Logging): void {
    const now = performance.now();
    if (now < this.#silentUntil) {
      this.#unsaid += 1;
      return;
    }
    const more = this.#unsaid === 0 ? {} : { unsaid: this.#unsaid };
    context.log.error({ err: error, ...more }, "an rpc handler failed; its client got an error reply");
    this.#silentUntil = now + SILENCE_MS;
    this.#unsaid = 0;
  }
}
