/**
 * Clients that notice: connections that are held and speak all the time, and a churn of short ones, from processes of
 * their own (a test holds more connections than one process has descriptors). They know what must come back and count
 * what did not: refused, reset, disconnected, hung, lost, repeated, reordered, wrong. Written on node:net, so that the
 * server's engine is not checked by itself. The tests of handover and bench/ use it.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { mergeLatencies } from "#src/load/latency.js";
import type { FromLoad, LoadShare, ProcessReport, ToLoad } from "./verified/messages.js";
import { addCounts, type Counts, type Side } from "./verified/tally.js";

const PROCESS_MAIN = fileURLToPath(new URL("./verified/process.js", import.meta.url));
/** 28,000 ports each. */
const SOURCES = Array.from({ length: 8 }, (_, index) => `127.0.1.${index + 1}`);

export interface VerifiedLoadOptions {
  readonly port: number;
  readonly host?: string;
  /** Held, over all processes. */
  readonly connections: number;
  /** Between two lines of a held connection, ms. */
  readonly intervalMs: number;
  /** Lines that a held connection may have unanswered. Default 4. */
  readonly window?: number;
  readonly churnPerSecond: number;
  /** Replies carry a word in front, which `cutByTag` names. */
  readonly tagged?: boolean;
  readonly processes?: number;
  /** It ends by itself after this, ms. */
  readonly mostMs: number;
}

/** Milliseconds. */
interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoadSide extends Counts {
  readonly latency: Latency;
}

/** What happened since the last report. */
export interface LoadReport {
  readonly held: LoadSide;
  readonly churn: LoadSide;
  /** Held connections that were cut, by the last tag seen. */
  readonly cutByTag: Readonly<Record<string, number>>;
  /** Some of what went wrong, in words. */
  readonly faults: readonly string[];
  /** The clients' own longest standstill, ms. */
  readonly ownPauseMs: number;
}

function mergeSides(sides: readonly Side[]): LoadSide {
  const histogram = mergeLatencies(sides.map((side) => side.latencies));
  const at = (percentile: number): number => histogram.getValueAtPercentile(percentile) / 1000;
  const latency = { p50: at(50), p99: at(99), p999: at(99.9), max: at(100) };
  return { ...addCounts(sides.map((side) => side.counts)), latency };
}

function mergeTags(parts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const part of parts) for (const [tag, count] of Object.entries(part)) sum[tag] = (sum[tag] ?? 0) + count;
  return sum;
}

function merge(reports: readonly ProcessReport[]): LoadReport {
  return {
    held: mergeSides(reports.map((report) => report.held)),
    churn: mergeSides(reports.map((report) => report.churn)),
    cutByTag: mergeTags(reports.map((report) => report.cutByTag)),
    faults: reports.flatMap((report) => report.faults),
    ownPauseMs: Math.max(...reports.map((report) => report.ownPauseMs)),
  };
}

/** One process as this one sees it. */
class Member {
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;
  #hear: (message: FromLoad) => void = () => {};

  constructor() {
    this.#child = fork(PROCESS_MAIN, [], { stdio: ["ignore", 2, 2, "ipc"] });
    this.#child.on("message", (message: FromLoad) => this.#hear(message));
    this.#ended = new Promise((_, reject) => {
      this.#child.once("exit", (code, signal) => reject(new Error(`a load process ended early (${signal ?? code})`)));
    });
    this.#ended.catch(() => {});
  }

  /** Tells it something and resolves with what it answers. */
  ask(message: ToLoad): Promise<FromLoad> {
    const answer = new Promise<FromLoad>((resolve) => {
      this.#hear = resolve;
    });
    this.#child.send(message, () => {});
    return Promise.race([answer, this.#ended]);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

export class VerifiedLoad {
  readonly #members: readonly Member[];

  private constructor(members: readonly Member[]) {
    this.#members = members;
  }

  /** Resolves when every held connection is open and has had an answer. The caller must `stop` or `kill`. */
  static async start(options: VerifiedLoadOptions): Promise<VerifiedLoad> {
    const { processes = 1, connections, churnPerSecond } = options;
    const load = new VerifiedLoad(Array.from({ length: processes }, () => new Member()));
    const share = (index: number): LoadShare => {
      const first = Math.floor((connections * index) / processes);
      return {
        host: options.host ?? "127.0.0.1",
        port: options.port,
        sources: SOURCES,
        connections: Math.floor((connections * (index + 1)) / processes) - first,
        first,
        intervalMs: options.intervalMs,
        window: options.window ?? 4,
        churnPerSecond: churnPerSecond / processes,
        churnFirst: (index + 1) * 10_000_000,
        tagged: options.tagged ?? false,
        mostMs: options.mostMs,
      };
    };
    try {
      await Promise.all(load.#members.map((member, index) => member.ask({ type: "begin", share: share(index) })));
    } catch (error) {
      load.kill();
      throw error;
    }
    return load;
  }

  /** What happened since the last call; it goes on. */
  take(): Promise<LoadReport> {
    return this.#collect({ type: "take" });
  }

  /**
   * Sends no more, waits a moment for the last replies, closes everything. With `replies` it goes on until each process
   * has had that many more, or for some seconds: so the last change is not the last that the clients see.
   */
  async stop(replies = 0): Promise<LoadReport> {
    const report = await this.#collect({ type: "stop", replies });
    this.kill();
    return report;
  }

  kill(): void {
    for (const member of this.#members) member.kill();
  }

  async #collect(message: ToLoad): Promise<LoadReport> {
    const answers = await Promise.all(this.#members.map((member) => member.ask(message)));
    return merge(answers.flatMap((answer) => (answer.type === "report" ? [answer.report] : [])));
  }
}

/** What a side must not have had: all but traffic. */
export function faultsOf(side: LoadSide): Partial<Counts> {
  const { opened: _o, sent: _s, verified: _v, latency: _l, ...faults } = side;
  return Object.fromEntries(Object.entries(faults).filter(([, count]) => count !== 0));
}
