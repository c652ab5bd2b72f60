/** An exchange of protocols whose replies carry no name: whatever comes next is the reply to what was asked last. */
import type { Codec } from "../codec/codec.ts";
import type { Call } from "./call.ts";
import type { Exchange, Line } from "./exchange.ts";

export class OneAtATime implements Exchange {
  // biome-ignore lint/suspicious/noExplicitAny: a codec of whatever messages
  readonly codec: Codec<any, any>;
  readonly capacity = 1;
  readonly usedUp = false;
  #call: Call | undefined;

  // biome-ignore lint/suspicious/noExplicitAny: a codec of whatever messages
  constructor(codec: Codec<any, any>) {
    this.codec = codec;
  }

  get inFlight(): number {
    return this.#call ? 1 : 0;
  }

  begin(call: Call, _leftMs: number, line: Line): void {
    line.write(call.message);
    this.#call = call;
  }

  take(message: unknown, line: Line): boolean {
    const call = this.#call;
    if (!call) return false;
    this.#call = undefined;
    line.answered(call, "ok", message);
    return true;
  }

  /** Its reply may still come, and would pass for that of the next call. */
  giveUp(): boolean {
    this.#call = undefined;
    return false;
  }

  abandon(): Call[] {
    const calls = this.#call ? [this.#call] : [];
    this.#call = undefined;
    return calls;
  }
}
