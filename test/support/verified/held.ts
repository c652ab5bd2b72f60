/**
 * Long connections: each sends a numbered line at a steady rate, whatever the server does, as long as fewer than
 * `window` are unanswered. A line that had to wait for that is timed from when it was due. Every fourth line leaves
 * in two pieces, so that at any moment some connections have half a line on its way. A connection that ends is counted
 * and opened again a moment later.
 */
import { connect, type Socket } from "node:net";
import type { AwakeClock } from "./awake.js";
import type { LoadShare } from "./messages.js";
import { lineOf, Replies } from "./replies.js";
import { type Faults, HANG_MS, Tally } from "./tally.js";

/** Connects in flight while the first are opened. */
const PENDING = 200;
const REOPEN_MS = 100;
const SPLIT_EVERY = 4;

type Phase = "connecting" | "open" | "ended";

class Held {
  readonly number: number;
  readonly #group: HeldConnections;
  readonly #socket: Socket;
  readonly #replies: Replies;
  /** When the unanswered lines were due, the oldest first. */
  readonly #since: number[] = [];
  /** AwakeClock: since then it waits for its connection, or for the next reply. */
  #waitsSince: number;
  phase: Phase = "connecting";
  #sent = 0;
  #rest = "";
  #hanging = false;
  /** A line has been due since then, and could not leave. */
  #lateSince: number | undefined;

  constructor(number: number, group: HeldConnections) {
    this.number = number;
    this.#group = group;
    this.#waitsSince = group.awake.now();
    this.#replies = new Replies(number, group.share.tagged);
    const { host, port } = group.share;
    this.#socket = connect({ host, port, localAddress: group.sourceOf(number), noDelay: true });
    this.#socket.setEncoding("latin1");
    let errno: string | undefined;
    this.#socket.once("connect", () => this.#opened());
    this.#socket.on("data", (chunk: string) => this.#receive(chunk));
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      errno = error.code ?? "unknown";
    });
    this.#socket.once("close", () => this.#ended(errno));
  }

  get answered(): boolean {
    return this.#replies.next > 0;
  }

  get unanswered(): number {
    return this.#since.length;
  }

  /** The next line is due. */
  due(now: number): void {
    if (this.phase !== "open") return;
    this.#lateSince ??= now;
    if (this.#since.length < this.#group.share.window && this.#rest === "") this.#send();
  }

  /** Sends the second piece of a line, if one is missing. */
  complete(): void {
    if (this.#rest === "" || this.phase !== "open") return;
    this.#socket.write(this.#rest, "latin1");
    this.#rest = "";
  }

  /** `awake`: AwakeClock. */
  watch(awake: number): void {
    const waits = this.phase === "connecting" || (this.phase === "open" && this.#since.length > 0);
    if (this.#hanging || !waits || awake - this.#waitsSince < HANG_MS) return;
    this.#hanging = true;
    this.#group.tally.counts.hung += 1;
    this.#group.report(this, this.phase === "connecting" ? "does not get connected" : `no reply ${this.#replies.next}`);
  }

  /** Ends it; what has not come by now is lost. */
  end(): void {
    if (this.phase === "open") {
      const lost = this.#since.length + this.#replies.missing;
      this.#group.tally.counts.lost += lost;
      if (lost > 0) this.#group.report(this, `${lost} replies never came, the next was ${this.#replies.next}`);
    }
    this.phase = "ended";
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #opened(): void {
    this.#group.tally.counts.opened += 1;
    this.phase = "open";
    this.#lateSince = performance.now();
    this.#hanging = false;
    this.#send();
  }

  #send(): void {
    const text = `${lineOf(this.number, this.#sent)}\n`;
    const now = performance.now();
    if (this.#since.length === 0) this.#waitsSince = this.#group.awake.now();
    // A timer is late by some ms itself: only what waited for an answer is timed from when it was due.
    this.#since.push(this.#lateSince ?? now);
    this.#lateSince = undefined;
    this.#sent += 1;
    this.#group.tally.counts.sent += 1;
    const split = this.#sent % SPLIT_EVERY === 0 ? text.length >> 1 : text.length;
    this.#socket.write(text.slice(0, split), "latin1");
    this.#rest = text.slice(split);
    if (this.#rest !== "") this.#group.incomplete(this);
  }

  #receive(chunk: string): void {
    if (this.phase !== "open") return;
    const { counts, latencies } = this.#group.tally;
    const now = performance.now();
    for (const line of this.#replies.cut(chunk)) {
      const before = this.#replies.next;
      const verdict = this.#replies.judge(line, this.#sent);
      const passed = this.#replies.next - before;
      for (let each = 0; each < passed; each++) latencies.record(now - (this.#since.shift() ?? now));
      if (verdict === "right") counts.verified += 1;
      else {
        counts[verdict] += 1;
        this.#group.report(this, `reply ${before} is due, ${verdict}: ${JSON.stringify(line.slice(0, 60))}`);
      }
      this.#hanging = false;
      this.#waitsSince = this.#group.awake.now();
    }
    if (this.#lateSince !== undefined && this.#since.length < this.#group.share.window && this.#rest === "") {
      this.#send();
    }
  }

  #ended(errno: string | undefined): void {
    const { phase } = this;
    this.phase = "ended";
    if (phase === "ended") {
      this.#group.forget(this);
      return;
    }
    const { tally } = this.#group;
    tally.end(errno);
    tally.counts.owed += this.#since.length;
    tally.counts.lost += this.#replies.missing;
    this.#group.cut(this, errno, this.#replies.tag, this.#since.length);
  }
}

export class HeldConnections {
  readonly share: LoadShare;
  readonly awake: AwakeClock;
  readonly tally: Tally = new Tally();
  /** Connections that were cut, by the last tag that each had seen. */
  cutByTag: Record<string, number> = {};
  readonly #faults: Faults;
  readonly #places: (Held | undefined)[];
  readonly #leaving = new Set<Held>();
  #incomplete: Held[] = [];
  #opening = 0;
  #startedAt = 0;
  #due = 0;
  #stopped = false;

  constructor(share: LoadShare, awake: AwakeClock, faults: Faults) {
    this.share = share;
    this.awake = awake;
    this.#faults = faults;
    this.#places = Array.from({ length: share.connections }, () => undefined);
  }

  /** Every connection is open and has had an answer. */
  get ready(): boolean {
    return this.#places.every((held) => held?.phase === "open" && held.answered);
  }

  get idle(): boolean {
    return this.#places.every((held) => held === undefined || held.phase === "ended" || held.unanswered === 0);
  }

  get closed(): boolean {
    return this.#leaving.size === 0;
  }

  sourceOf(number: number): string {
    return this.share.sources[number % this.share.sources.length] ?? "127.0.0.1";
  }

  report(held: Held, what: string): void {
    this.#faults.add(`connection ${held.number}: ${what}`);
  }

  incomplete(held: Held): void {
    this.#incomplete.push(held);
  }

  cut(held: Held, errno: string | undefined, tag: string, owed: number): void {
    this.cutByTag[tag] = (this.cutByTag[tag] ?? 0) + 1;
    this.report(held, `${errno ?? "closed"} after ${tag || "no tag"}, ${owed} replies owed`);
    const place = held.number - this.share.first;
    setTimeout(() => {
      if (!this.#stopped) this.#places[place] = new Held(held.number, this);
    }, REOPEN_MS);
  }

  forget(held: Held): void {
    this.#leaving.delete(held);
  }

  /** The steady rate begins; the connections that are not open yet join in as they open. */
  start(): void {
    this.#startedAt = performance.now();
  }

  tick(now: number): void {
    this.#open();
    const incomplete = this.#incomplete;
    this.#incomplete = [];
    for (const held of incomplete) held.complete();
    if (this.#startedAt === 0 || this.#stopped) return;
    const count = this.#places.length;
    const intervalMs = this.share.intervalMs / count;
    for (; this.#startedAt + this.#due * intervalMs <= now; this.#due++) this.#places[this.#due % count]?.due(now);
  }

  watch(): void {
    const awake = this.awake.now();
    for (const held of this.#places) held?.watch(awake);
  }

  /** Sends no more. */
  stop(): void {
    this.#stopped = true;
  }

  end(): void {
    this.stop();
    for (const held of this.#places) {
      if (held === undefined || held.phase === "ended") continue;
      this.#leaving.add(held);
      held.end();
    }
  }

  destroy(): void {
    for (const held of this.#places) held?.destroy();
  }

  #open(): void {
    if (this.#opening >= this.#places.length || this.#stopped) return;
    let pending = 0;
    for (let place = 0; place < this.#opening; place++) if (this.#places[place]?.phase === "connecting") pending += 1;
    for (; pending < PENDING && this.#opening < this.#places.length; pending++, this.#opening++) {
      this.#places[this.#opening] = new Held(this.share.first + this.#opening, this);
    }
  }
}
