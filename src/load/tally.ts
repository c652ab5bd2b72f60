/**
 * What a process counts from its first connect to its end. Connections and messages write plain numbers here; the
 * measured window is the difference of two snapshots.
 */
import { errnoName } from "../os/errno.ts";

/** Counts by symbolic errno. */
export type ErrnoCounts = Record<string, number>;

/** The first reply that was wrong. */
export interface Mismatch {
  /** Number of the connection. */
  readonly connection: number;
  /** Number of the message on its connection, from 0. */
  readonly message: number;
  /** Of the first wrong byte, in the message. */
  readonly offset: number;
  /** What should stand there, and what does: a few bytes, printable. "" when nothing more was expected. */
  readonly expected: string;
  readonly got: string;
}

/** Counters at one moment. */
export interface Snapshot {
  readonly sent: number;
  readonly verified: number;
  readonly wrong: number;
  readonly bytesReceived: number;
  /** performance.now(), ms. */
  readonly at: number;
  /** Epoch ms. */
  readonly epochMs: number;
  /** User and system time of this process, microseconds. */
  readonly cpuMicros: number;
}

export class Tally {
  /** Connects begun. */
  requested = 0;
  opened = 0;
  readonly failed: ErrnoCounts = {};
  readonly resets: ErrnoCounts = {};
  closedByPeer = 0;
  sent = 0;
  /** Whole replies that were right. */
  verified = 0;
  /** Replies that were not. */
  wrong = 0;
  /** Bytes that came when no reply was due: a reply too many. */
  unexpected = 0;
  /** Replies that a connection still owed when it ended. */
  lost = 0;
  /** Messages that were due (`open`) and never sent. */
  unsent = 0;
  bytesReceived = 0;
  mismatch: Mismatch | undefined;

  /** Replies that may still come. */
  get awaited(): number {
    return this.sent - this.verified - this.wrong - this.lost;
  }

  get failures(): number {
    return Object.values(this.failed).reduce((sum, count) => sum + count, 0);
  }

  count(counts: ErrnoCounts, errno: number): void {
    const name = errnoName(errno);
    counts[name] = (counts[name] ?? 0) + 1;
  }

  snapshot(): Snapshot {
    const { user, system } = process.cpuUsage();
    return {
      sent: this.sent,
      verified: this.verified,
      wrong: this.wrong,
      bytesReceived: this.bytesReceived,
      at: performance.now(),
      epochMs: Date.now(),
      cpuMicros: user + system,
    };
  }
}
