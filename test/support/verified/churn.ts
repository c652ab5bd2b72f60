/**
 * The churn: connect, one line, check the reply, FIN, and the server's FIN; so many a second, whatever the server does.
 * Latency is from the connect to the reply. A connection that hangs is counted when a second has passed and given up
 * some seconds later, so that the length of a longer pause is known too.
 */
import { connect, type Socket } from "node:net";
import type { AwakeClock } from "./awake.js";
import type { LoadShare } from "./messages.js";
import { lineOf, Replies } from "./replies.js";
import { type Faults, HANG_MS, Tally } from "./tally.js";

const GIVE_UP_MS = 5_000;
/** Open at once at most. */
const MOST_OPEN = 2_000;

class Visit {
  readonly #churn: Churn;
  readonly #number: number;
  readonly #socket: Socket;
  readonly #replies: Replies;
  readonly #startedAt: number = performance.now();
  /** AwakeClock. */
  readonly #waitsSince: number;
  #phase: "connecting" | "asked" | "answered" | "given-up" = "connecting";
  #hanging = false;

  constructor(number: number, churn: Churn) {
    this.#churn = churn;
    this.#number = number;
    this.#waitsSince = churn.awake.now();
    this.#replies = new Replies(number, churn.share.tagged);
    const { host, port, sources } = churn.share;
    const localAddress = sources[number % sources.length] ?? "127.0.0.1";
    this.#socket = connect({ host, port, localAddress, noDelay: true });
    this.#socket.setEncoding("latin1");
    let errno: string | undefined;
    this.#socket.once("connect", () => this.#connected());
    this.#socket.on("data", (chunk: string) => this.#receive(chunk));
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      errno = error.code ?? "unknown";
    });
    this.#socket.once("close", () => this.#closed(errno));
  }

  /** `awake`: AwakeClock. */
  watch(awake: number): void {
    const age = awake - this.#waitsSince;
    if (age >= GIVE_UP_MS) {
      // What the server's end of a finished conversation does is its own affair.
      if (this.#phase === "asked") this.#churn.tally.counts.lost += 1;
      this.#phase = "given-up";
      this.#socket.destroy();
    } else if (age >= HANG_MS && !this.#hanging && this.#phase !== "answered") {
      this.#hanging = true;
      this.#churn.tally.counts.hung += 1;
      this.#report(this.#phase === "connecting" ? "does not get connected" : "gets no reply");
    }
  }

  #report(what: string): void {
    this.#churn.faults.add(`churn ${this.#number} from ${this.#socket.localPort ?? "?"}: ${what}`);
  }

  #connected(): void {
    this.#churn.tally.counts.opened += 1;
    this.#churn.tally.counts.sent += 1;
    this.#phase = "asked";
    this.#socket.write(`${lineOf(this.#number, 0)}\n`, "latin1");
  }

  #receive(chunk: string): void {
    const { counts, latencies } = this.#churn.tally;
    for (const line of this.#replies.cut(chunk)) {
      const verdict = this.#replies.judge(line, 1);
      if (verdict === "right") {
        counts.verified += 1;
        latencies.record(performance.now() - this.#startedAt);
        this.#phase = "answered";
        this.#socket.end();
      } else {
        counts[verdict] += 1;
        this.#report(`${verdict}: ${JSON.stringify(line.slice(0, 60))}`);
      }
    }
  }

  #closed(errno: string | undefined): void {
    this.#churn.over(this);
    if (this.#phase === "given-up" || (this.#phase === "answered" && errno === undefined)) return;
    this.#churn.tally.end(errno);
    if (this.#phase === "asked") this.#churn.tally.counts.owed += 1;
    this.#report(`${errno ?? "closed"} while ${this.#phase}`);
  }
}

export class Churn {
  readonly share: LoadShare;
  readonly awake: AwakeClock;
  readonly tally: Tally = new Tally();
  readonly faults: Faults;
  readonly #open = new Set<Visit>();
  #startedAt = 0;
  #begun = 0;
  #running = false;

  constructor(share: LoadShare, awake: AwakeClock, faults: Faults) {
    this.share = share;
    this.awake = awake;
    this.faults = faults;
  }

  get idle(): boolean {
    return this.#open.size === 0;
  }

  start(): void {
    this.#startedAt = performance.now();
    this.#running = true;
  }

  stop(): void {
    this.#running = false;
  }

  over(visit: Visit): void {
    this.#open.delete(visit);
  }

  tick(now: number): void {
    if (!this.#running || this.share.churnPerSecond === 0) return;
    const due = Math.floor(((now - this.#startedAt) / 1000) * this.share.churnPerSecond);
    for (; this.#begun < due; this.#begun++) {
      if (this.#open.size >= MOST_OPEN) continue;
      this.#open.add(new Visit(this.share.churnFirst + this.#begun, this));
    }
  }

  watch(): void {
    const awake = this.awake.now();
    for (const visit of this.#open) visit.watch(awake);
  }
}
