/**
 * How calls and replies belong together on one connection: one call at a time (one-at-a-time.ts), for protocols whose
 * replies carry no name; or many, told apart by ids (many-at-once.ts). An exchange knows the calls that are under way;
 * the connection does the rest.
 */
import type { Codec } from "../codec/codec.ts";
import type { Call } from "./call.ts";
import type { Outcome } from "./counters.ts";

/** What an exchange asks of its connection. */
export interface Line {
  readonly address: string;
  /** Throws when the message cannot be encoded; then nothing was sent. */
  write(message: unknown): void;
  answered(call: Call, outcome: Outcome, value: unknown): void;
  /** A reply that nobody waits for. */
  late(): void;
  /** No further calls, please. `last`: what has no reply by now was never begun. */
  goodbye(last: boolean): void;
}

export interface Exchange {
  // biome-ignore lint/suspicious/noExplicitAny: a codec of whatever messages
  readonly codec: Codec<any, any>;
  /** Calls that may be under way at once. */
  readonly capacity: number;
  readonly inFlight: number;
  /** No further call fits, ever. */
  readonly usedUp: boolean;
  /** Throws as `Line.write`. `leftMs`: what is left for the call, more than 0. */
  begin(call: Call, leftMs: number, line: Line): void;
  /** False: the peer says what it was not asked. */
  take(message: unknown, line: Line): boolean;
  /** Nobody waits for this call any more. False: so the connection is of no use either. */
  giveUp(call: Call, line: Line): boolean;
  /** Those that are under way; none are from now on. */
  abandon(): Call[];
}
