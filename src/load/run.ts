/**
 * A run over all its processes: connect, warm up, measure, collect. The processes are told at the same moment what
 * comes next; their reports become one result. An early end (Ctrl-C) goes to the end of the window at once and gives
 * the result so far. Nothing outlives the run, however it ends.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadOptions, shareOf } from "./options.ts";
import { LoadProcess } from "./process.ts";
import type { ToLoad } from "./report.ts";
import { type LoadResult, mergeReports } from "./result.ts";

/** A report comes this long after the last deadline inside a load process at the latest, ms. */
const REPORT_MS = 20_000;
const PROGRESS_MS = 100;

export interface LoadProgress {
  readonly phase: "connecting" | "warm-up" | "measuring";
  /** 0 to 1. */
  readonly done: number;
  /** Connects decided so far. */
  readonly connections: number;
}

export interface LoadListener {
  /** The window begins, the window ends; called at that moment. A `hold` has none. */
  onEvent?(event: "measuring" | "measured"): void;
  onProgress?(progress: LoadProgress): void;
}

export interface LoadRun {
  readonly result: LoadResult;
  /** Closes the connections and ends the processes. To be called once. */
  leave(): Promise<void>;
}

/** Runs a load. `early` ends it before its time. Throws `usage` or `worker-failed` when it cannot run. */
export async function runLoad(
  options: LoadOptions,
  listener: LoadListener = {},
  early: AbortSignal = new AbortController().signal,
): Promise<LoadRun> {
  const processes = Array.from({ length: options.processes }, () => new LoadProcess());
  const failed = Promise.all(processes.map((process) => process.report)).then(() => undefined);
  failed.catch(() => {});
  const ended = new Promise<void>((resolve) => early.addEventListener("abort", () => resolve(), { once: true }));
  try {
    await new Phases(options, listener, early, processes).run(Promise.race([failed, ended]));
    const reports = await Promise.all(processes.map((process) => process.report));
    return {
      result: mergeReports(reports, options.mode),
      leave: async () => {
        await Promise.all(processes.map((process) => process.leave()));
      },
    };
  } catch (error) {
    for (const process of processes) process.kill();
    throw error;
  }
}

class Phases {
  readonly #options: LoadOptions;
  readonly #listener: LoadListener;
  readonly #early: AbortSignal;
  readonly #processes: readonly LoadProcess[];

  constructor(options: LoadOptions, listener: LoadListener, early: AbortSignal, processes: readonly LoadProcess[]) {
    this.#options = options;
    this.#listener = listener;
    this.#early = early;
    this.#processes = processes;
  }

  /** `over` resolves when the run ends early and rejects when a process fails. */
  async run(over: Promise<void>): Promise<void> {
    const { mode, warmupMs, durationMs, timeoutMs } = this.#options;
    const opened = await this.#connect(over);
    if (mode !== "hold" && (opened > 0 || mode === "churn") && !this.#early.aborted) {
      this.#tell({ type: "go" });
      await this.#spend("warm-up", warmupMs, over);
      // Ended before there was a window: then the result is of everything so far.
      if (!this.#early.aborted) {
        this.#listener.onEvent?.("measuring");
        this.#tell({ type: "measure" });
        await this.#spend("measuring", durationMs, over);
        this.#listener.onEvent?.("measured");
      }
    }
    this.#tell({ type: "stop" });
    for (const process of this.#processes) process.expectReport(timeoutMs + REPORT_MS);
  }

  async #connect(over: Promise<void>): Promise<number> {
    this.#processes.forEach((process, index) => {
      process.begin(shareOf(this.#options, index));
    });
    const { connections } = this.#options;
    const timer = setInterval(() => {
      const decided = this.#decided();
      this.#listener.onProgress?.({ phase: "connecting", done: decided / connections, connections: decided });
    }, PROGRESS_MS);
    try {
      const all = Promise.all(this.#processes.map((process) => process.connected));
      const opened = await Promise.race([all, over]);
      return opened ? opened.reduce((sum, count) => sum + count, 0) : 0;
    } finally {
      clearInterval(timer);
    }
  }

  #decided(): number {
    return this.#processes.reduce((sum, process) => sum + process.decided, 0);
  }

  #tell(message: ToLoad): void {
    for (const process of this.#processes) process.tell(message);
  }

  /** Lets `ms` pass, or less when the run is over. */
  async #spend(phase: LoadProgress["phase"], ms: number, over: Promise<void>): Promise<void> {
    if (this.#early.aborted) return;
    const startedAt = performance.now();
    const timer = setInterval(() => {
      const done = Math.min(1, (performance.now() - startedAt) / ms);
      this.#listener.onProgress?.({ phase, done, connections: this.#decided() });
    }, PROGRESS_MS);
    const stop = new AbortController();
    try {
      await Promise.race([sleep(ms, undefined, { signal: stop.signal }), over]);
    } finally {
      stop.abort();
      clearInterval(timer);
    }
  }
}
