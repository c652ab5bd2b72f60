/**
 * What a verified load counts. Held connections and churn are counted apart, because a handover may owe them
 * different things. `take` hands out what happened since the last `take`, so that a test can look at each step alone.
 */
import { Latencies, type LatencyCounts } from "#src/load/latency.js";

export interface Counts {
  /** Connects that succeeded. */
  opened: number;
  /** ECONNREFUSED. */
  refused: number;
  /** ECONNRESET or EPIPE, at whatever moment. */
  reset: number;
  /** Ended in order by the server before the client was through. */
  disconnected: number;
  /** Any other errno: most likely the client's own (no port, no descriptor). */
  failed: number;
  /** Times that a connect or an answer took longer than HANG_MS of the time that the client itself was running. */
  hung: number;
  sent: number;
  /** Replies that came once, in order, with the right bytes. */
  verified: number;
  /** Replies that never came on a connection that lived on. */
  lost: number;
  /** Replies that were owed by a connection when it was cut. */
  owed: number;
  repeated: number;
  /** Replies that came after a later one. */
  reordered: number;
  /** Lines that are no reply of this connection. */
  wrong: number;
}

/** One kind of connections, as a process reports it. */
export interface Side {
  readonly counts: Counts;
  readonly latencies: LatencyCounts;
}

const ZERO: Readonly<Counts> = {
  opened: 0,
  refused: 0,
  reset: 0,
  disconnected: 0,
  failed: 0,
  hung: 0,
  sent: 0,
  verified: 0,
  lost: 0,
  owed: 0,
  repeated: 0,
  reordered: 0,
  wrong: 0,
};

export function addCounts(parts: readonly Counts[]): Counts {
  const sum = { ...ZERO };
  for (const part of parts) for (const name of Object.keys(sum) as (keyof Counts)[]) sum[name] += part[name];
  return sum;
}

/** A connect or an answer that takes longer hangs, ms. */
export const HANG_MS = 1_000;
/** Enough to see what happened; the counts tell how often. */
const MOST_FAULTS = 20;

export class Tally {
  counts: Counts = { ...ZERO };
  readonly latencies: Latencies = new Latencies();

  take(): Side {
    const side = { counts: this.counts, latencies: this.latencies.counts() };
    this.counts = { ...ZERO };
    this.latencies.clear();
    return side;
  }

  /** Sorts the error that a connection ended with. */
  end(errno: string | undefined): void {
    if (errno === undefined) this.counts.disconnected += 1;
    else if (errno === "ECONNREFUSED") this.counts.refused += 1;
    else if (errno === "ECONNRESET" || errno === "EPIPE") this.counts.reset += 1;
    else this.counts.failed += 1;
  }
}

/** The first faults in words, with the time of day as the server's log has it. */
export class Faults {
  #texts: string[] = [];

  add(text: string): void {
    if (this.#texts.length < MOST_FAULTS) this.#texts.push(`${new Date().toISOString().slice(11, -1)} ${text}`);
  }

  take(): string[] {
    const texts = this.#texts;
    this.#texts = [];
    return texts;
  }
}
