/**
 * What a client counts. Plain increments under names that are all known beforehand, so that metrics have as many
 * series as stand here, whatever happens.
 */

/** How a call ended. */
export const OUTCOMES = [
  "ok",
  "remote-error",
  "remote-busy",
  "remote-deadline",
  "deadline",
  "cancelled",
  "waiting-full",
  "connect-failed",
  "connection-lost",
  "reply-invalid",
  "not-sent",
  "client-closed",
] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Why a connection left the pool. */
export const EVICTIONS = [
  "idle",
  "surplus",
  "peer-closed",
  "peer-reset",
  "io-error",
  "goodbye",
  "protocol-error",
  "unexpected-data",
  "given-up",
  "silent",
  "ids-used-up",
  "closing",
] as const;
export type Eviction = (typeof EVICTIONS)[number];

/** Why an address could not be connected to. */
export const CONNECT_FAULTS = ["refused", "timeout", "unreachable", "name", "tls", "other"] as const;
export type ConnectFault = (typeof CONNECT_FAULTS)[number];

const FAULTS: ReadonlyMap<string, ConnectFault> = new Map([
  ["ECONNREFUSED", "refused"],
  ["ETIMEDOUT", "timeout"],
  ["ENETUNREACH", "unreachable"],
  ["EHOSTUNREACH", "unreachable"],
  ["EPROTO", "tls"],
  ["ENOTFOUND", "name"],
  ["EAI_AGAIN", "name"],
]);

export function connectFault(errno: string): ConnectFault {
  return FAULTS.get(errno) ?? "other";
}

/** Upper bounds of the buckets of durations, ms; what is above the last one has a bucket of its own. */
export const DURATION_BUCKETS_MS: readonly number[] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

type Counts<Names extends readonly string[]> = Record<Names[number], number>;

function zeros<Names extends readonly string[]>(names: Names): Counts<Names> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Counts<Names>;
}

export class ClientCounters {
  calls = 0;
  readonly ended: Counts<typeof OUTCOMES> = zeros(OUTCOMES);
  /** Connections that were made, */
  opened = 0;
  /** those of them whose TLS session was resumed, */
  resumed = 0;
  /** and calls that found one that had served before. */
  reused = 0;
  /** Attempts to reach a target that failed, by the last reason, */
  readonly connectFaults: Counts<typeof CONNECT_FAULTS> = zeros(CONNECT_FAULTS);
  /** and addresses that failed; an attempt may find another one that works. */
  addressFaults = 0;
  readonly evicted: Counts<typeof EVICTIONS> = zeros(EVICTIONS);
  /** Idle connections that the check before reuse found to be of no use. */
  unhealthy = 0;
  /** Calls that had to wait for a connection, and for how long in all. */
  waited = 0;
  waitedMs = 0;
  /** Replies that nobody waited for any more. */
  late = 0;
  /** Requests that a server had said goodbye to and that were sent elsewhere, */
  moved = 0;
  /** those that were sent again at the expense of `retries`, and those that these refused. */
  retried = 0;
  retriesRefused = 0;
  lookups = 0;
  lookupsFailed = 0;
  /** Calls by their duration: one for each of DURATION_BUCKETS_MS, and one for what took longer. */
  readonly durations: number[] = new Array<number>(DURATION_BUCKETS_MS.length + 1).fill(0);
  durationsMs = 0;

  end(outcome: Outcome, durationMs: number): void {
    this.ended[outcome] += 1;
    this.durationsMs += durationMs;
    let bucket = 0;
    while (bucket < DURATION_BUCKETS_MS.length && durationMs > (DURATION_BUCKETS_MS[bucket] as number)) bucket++;
    this.durations[bucket] = (this.durations[bucket] as number) + 1;
  }

  snapshot(): ClientCounts {
    const { ended, connectFaults, evicted, durations } = this;
    return structuredClone({ ...this, ended, connectFaults, evicted, durations });
  }
}

/** The counters at one moment. */
export type ClientCounts = Readonly<Omit<ClientCounters, "end" | "snapshot">>;
