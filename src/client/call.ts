/**
 * One call: what is asked, until when, and where it stands. It ends once; whoever ends it (a reply, its deadline, its
 * caller, a lost connection) does so through the client, which takes it out of all lists that it stands in.
 */
import type { CallOptions, Cancellable } from "../service/call.ts";
import type { PooledConnection } from "./connection.ts";

/** Where a call is told that its caller wants it no more. */
interface Giver {
  giveUp(call: Call, error: unknown): void;
}

export class Call implements Cancellable {
  readonly message: unknown;
  readonly options: CallOptions;
  /** performance.now(), ms. */
  readonly startedAt: number;
  readonly deadlineAt: number;
  readonly promise: Promise<unknown>;
  ended = false;
  /** Its connection, while it is under way. */
  connection: PooledConnection | undefined;
  /** rpc: its id on that connection. */
  id = 0;
  /** The silence of its connection in which it was sent (connection.ts). */
  silence = 0;
  /** It was sent on another connection before. */
  again = false;
  /** Its place in CallDeadlines; -1: none. */
  place = -1;
  /** Its neighbours in WaitingCalls. */
  waiting = false;
  before: Call | undefined;
  behind: Call | undefined;
  readonly #client: Giver;
  readonly #held: Set<Cancellable> | undefined;
  #onAbort: (() => void) | undefined;
  #resolve: (value: unknown) => void = () => {};
  #reject: (error: unknown) => void = () => {};

  constructor(
    client: Giver,
    message: unknown,
    options: CallOptions,
    now: number,
    timeoutMs: number,
    held: Set<Cancellable> | undefined,
  ) {
    this.#client = client;
    this.message = message;
    this.options = options;
    this.startedAt = now;
    this.deadlineAt = now + timeoutMs;
    this.#held = held;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Begins to listen to those who may give it up. */
  watch(): void {
    this.#held?.add(this);
    const { signal } = this.options;
    if (!signal) return;
    this.#onAbort = () => this.#client.giveUp(this, signal.reason);
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  cancel(error: unknown): void {
    // Its request is over, so perhaps nobody listens any more: no reason to end the process.
    this.promise.catch(() => {});
    this.#client.giveUp(this, error);
  }

  resolve(value: unknown): void {
    this.#end();
    this.#resolve(value);
  }

  reject(error: unknown): void {
    this.#end();
    this.#reject(error);
  }

  #end(): void {
    this.ended = true;
    this.connection = undefined;
    this.#held?.delete(this);
    if (this.#onAbort) this.options.signal?.removeEventListener("abort", this.#onAbort);
  }
}
