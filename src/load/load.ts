/** What the connections of one process share, and what they tell it. generator.ts is the one implementation. */
import type { Engine } from "../engine/engine.ts";
import type { Client } from "./client.ts";
import type { RoundClock } from "./clock.ts";
import type { Encryption } from "./encryption.ts";
import type { Latencies } from "./latency.ts";
import type { LoadShare } from "./options.ts";
import type { Payload } from "./payload.ts";
import type { Tally } from "./tally.ts";

export interface Load {
  readonly engine: Engine;
  readonly share: LoadShare;
  readonly payload: Payload;
  readonly tally: Tally;
  readonly latencies: Latencies;
  readonly clock: RoundClock;
  readonly traffic: Traffic;
  /** Of a load over TLS. */
  readonly encryption: Encryption | undefined;
  /** The connect succeeded, and the handshake. */
  opened(client: Client): void;
  /** The connection is over, for whatever reason; it has been counted. */
  gone(client: Client): void;
}

/**
 * Who sends when: one object per process, one class per mode. The order of calls: `opened` for every connection, then
 * `go`, `measure`, `stop` and `finish`; an early end leaves out `go` or `measure`. Times are those of RoundClock, ms.
 *
 * Every mode but `churn` sends one message on a connection as soon as it is open, and no more until `go`: a server
 * that waits for a first byte does not give up on connections that were opened early, and no traffic slows the
 * opening of the others down.
 */
export interface Traffic {
  opened(client: Client): void;
  /** Reply `sequence` (from 0) of `client` came and is right. */
  replied(client: Client, sequence: number, time: number): void;
  /** Everything that arrived for `client` in this round is used up. */
  arrived?(client: Client): void;
  /** The client's unsent bytes are below the mark that it asked for. */
  writable?(client: Client): void;
  gone?(client: Client): void;
  /** Begin: the warm-up starts. */
  go(): void;
  /** The measured window starts. */
  measure?(time: number): void;
  /** It ends: send no more. */
  stop(time: number): void;
  /** No reply is waited for any longer. */
  finish?(time: number): void;
  /** About every 50 ms. */
  tick?(time: number): void;
}
