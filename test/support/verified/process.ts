/**
 * A process of the verified load (verified-load.ts starts it and speaks to it over IPC). It ends when it is told to,
 * when whoever started it has gone, and in any case when its time is up.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { AwakeClock } from "./awake.js";
import { Churn } from "./churn.js";
import { HeldConnections } from "./held.js";
import type { FromLoad, LoadShare, ProcessReport, ToLoad } from "./messages.js";
import { Faults } from "./tally.js";

const TICK_MS = 5;
const WATCH_MS = 50;
/** For the last replies, and for the server's FINs. */
const SETTLE_MS = 3_000;
const NS_PER_MS = 1e6;

class LoadProcess {
  readonly #faults = new Faults();
  readonly #awake = new AwakeClock(TICK_MS);
  readonly #held: HeldConnections;
  readonly #churn: Churn;
  readonly #delay = monitorEventLoopDelay({ resolution: 10 });
  readonly #ticking: NodeJS.Timeout;
  readonly #watching: NodeJS.Timeout;

  constructor(share: LoadShare) {
    this.#held = new HeldConnections(share, this.#awake, this.#faults);
    this.#churn = new Churn(share, this.#awake, this.#faults);
    this.#ticking = setInterval(() => {
      const now = performance.now();
      this.#awake.tick();
      this.#held.tick(now);
      this.#churn.tick(now);
    }, TICK_MS);
    this.#watching = setInterval(() => {
      this.#held.watch();
      this.#churn.watch();
    }, WATCH_MS);
  }

  /** Resolves when every connection is open and answered; what counts begins then. */
  async begin(): Promise<void> {
    await this.#until(() => this.#held.ready, Number.POSITIVE_INFINITY);
    this.#held.start();
    this.#churn.start();
    this.#delay.enable();
    this.#held.tally.latencies.clear();
  }

  take(): ProcessReport {
    const ownPauseMs = this.#delay.max / NS_PER_MS;
    this.#delay.reset();
    const cutByTag = this.#held.cutByTag;
    this.#held.cutByTag = {};
    return {
      held: this.#held.tally.take(),
      churn: this.#churn.tally.take(),
      cutByTag,
      faults: this.#faults.take(),
      ownPauseMs,
    };
  }

  async stop(replies: number): Promise<ProcessReport> {
    const { counts } = this.#held.tally;
    const enough = counts.verified + replies;
    await this.#until(() => counts.verified >= enough, SETTLE_MS);
    this.#held.stop();
    this.#churn.stop();
    await this.#until(() => this.#held.idle && this.#churn.idle, SETTLE_MS);
    clearInterval(this.#ticking);
    this.#held.end();
    await this.#until(() => this.#held.closed && this.#churn.idle, SETTLE_MS);
    clearInterval(this.#watching);
    return this.take();
  }

  #until(ready: () => boolean, mostMs: number): Promise<void> {
    const deadline = performance.now() + mostMs;
    return new Promise((resolve) => {
      const timer = setInterval(() => {
        if (!ready() && performance.now() < deadline) return;
        clearInterval(timer);
        resolve();
      }, TICK_MS);
    });
  }
}

let load: LoadProcess | undefined;

function say(message: FromLoad): void {
  process.send?.(message);
}

process.on("SIGINT", () => {});
process.on("disconnect", () => process.exit(0));
process.on("message", async (message: ToLoad) => {
  switch (message.type) {
    case "begin":
      setTimeout(() => process.exit(1), message.share.mostMs);
      load = new LoadProcess(message.share);
      await load.begin();
      say({ type: "running" });
      break;
    case "take":
      if (load) say({ type: "report", report: load.take() });
      break;
    case "stop":
      if (load) say({ type: "report", report: await load.stop(message.replies) });
      break;
  }
});
