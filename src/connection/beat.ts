/**
 * The heartbeat of one connection, of a service that has them. Any byte from the peer is a sign of life; pings are for
 * those that are silent. Neither ping nor pong counts as activity for `timeouts.idle`, so what the engine's clocks say
 * is sorted here: a ping is known by the clock at which it left, and everything else by what the codec makes of it.
 */
import type { SlotCounters } from "../engine/engine.ts";

type Clocks = Pick<SlotCounters, "receivedAt" | "progressAt">;

/** What moves with the connection. */
export interface BeatRecord {
  /** Clock (ms) of the last ping; 0: none yet. */
  readonly pingedAt: number;
  /** Pings in a row that brought nothing. */
  readonly missed: number;
  /** Clock (ms) of the last message that was no pong, as far as the engine's clocks do not tell. */
  readonly activeAt: number;
}

export const NO_BEAT: BeatRecord = { pingedAt: 0, missed: 0, activeAt: 0 };

interface PingStanding {
  readonly busyUntil: number;
  readonly inFrame: boolean;
  /** With so many missed it ends. */
  readonly most: number;
}

export class Beat implements BeatRecord {
  pingedAt: number;
  missed: number;
  activeAt: number;

  constructor({ pingedAt, missed, activeAt }: BeatRecord) {
    this.pingedAt = pingedAt;
    this.missed = missed;
    this.activeAt = activeAt;
  }

  /** Since when there was no activity. `inFrame`: the bytes that came last are a message's. */
  idleSince({ receivedAt, progressAt }: Clocks, inFrame: boolean): number {
    const sent = progressAt > this.pingedAt ? progressAt : 0;
    return Math.max(this.activeAt, sent, inFrame ? receivedAt : 0);
  }

  /** Since when the peer may be asked for a sign of life again. */
  silentSince({ receivedAt }: Clocks, busyUntil: number): number {
    return Math.max(receivedAt, this.pingedAt, busyUntil);
  }

  /**
   * The silence has lasted: counts the last ping as missed, if there was one and the peer could answer it. False when
   * it is the last that may be missed; else the next one is to be sent.
   */
  ping(now: number, clocks: Clocks, { busyUntil, inFrame, most }: PingStanding): boolean {
    const heard = clocks.receivedAt >= this.pingedAt || busyUntil >= this.pingedAt;
    this.missed = heard ? 0 : this.missed + 1;
    if (this.missed >= most) return false;
    this.activeAt = this.idleSince(clocks, inFrame);
    this.pingedAt = now;
    return true;
  }
}
