/**
 * What is found out about a worker once a second, and not with each request: how late its event loop is, what garbage
 * collection takes, what decoding takes, its heap, its descriptors, its oldest request. Written to its block of the
 * scoreboard; whatever counts only grows. The loop's delay is how late the engine's ticks come, so nothing has to wake
 * an idle worker for it (monitorEventLoopDelay would, 50 times a second, and loses a delay that is there at its reset);
 * of a single long turn it may miss up to a tick. The longest is that of a whole minute, so that whoever asks every 15 s
 * sees it. While the loop stands still this says nothing new: the primary adds that (primary/snapshot.ts).
 */
import { constants, type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import { GC_KINDS, type GcKind } from "../base/measured.ts";
import type { Timing } from "../connection/timing.ts";
import { TICK_MS } from "../engine/layout.ts";
import type { OpenDescriptors } from "../os/open-descriptors.ts";
import { WORKER_GC, WORKER_GC_SECONDS, type WorkerBlock } from "../os/scoreboard.ts";

const EVERY_MS = 1_000;
/** For the longest delay. */
const LONGEST_OF_MS = 60_000;

const KIND_OF: ReadonlyMap<number, GcKind> = new Map([
  [constants.NODE_PERFORMANCE_GC_MINOR, "minor"],
  [constants.NODE_PERFORMANCE_GC_MAJOR, "major"],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, "incremental"],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, "weakcb"],
]);

export interface VitalsOptions {
  readonly block: WorkerBlock;
  readonly timing: Timing;
  readonly descriptors: OpenDescriptors;
  /** Connections, of clients too. */
  readonly connections: () => number;
}

export class Vitals {
  readonly #options: VitalsOptions;
  /** How late the ticks of this second were, ms. */
  #late: number[] = [];
  /** The longest of each of the last seconds, with when it was noted; ms. */
  #longest: { readonly at: number; readonly ms: number }[] = [];
  #tickedAt: number;
  readonly #collections: PerformanceObserver;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #scriptSeconds: number;
  #decodeSeconds: number;

  constructor(options: VitalsOptions) {
    this.#options = options;
    this.#scriptSeconds = options.block.get("scriptSeconds");
    this.#decodeSeconds = options.timing.decodeSeconds;
    this.#tickedAt = options.timing.laps.now();
    this.#collections = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) this.#collected(entry);
    });
    this.#collections.observe({ entryTypes: ["gc"] });
  }

  /** Call it every tick; `now`: ms. */
  look(now: number): void {
    const { block, timing, descriptors, connections } = this.#options;
    const tickedAt = timing.laps.now();
    this.#late.push(Math.max(0, tickedAt - this.#tickedAt - TICK_MS));
    this.#tickedAt = tickedAt;
    if (now - this.#lookedAt < EVERY_MS) return;
    this.#lookedAt = now;
    this.#readDelay(now);
    this.#splitScript();
    block.set("openFds", descriptors.count(connections()));
    block.set("heapBytes", getHeapStatistics().used_heap_size);
    block.set("oldestSeconds", timing.oldestSeconds());
  }

  end(): void {
    this.#collections.disconnect();
  }

  #readDelay(now: number): void {
    const { block } = this.#options;
    const late = this.#late.sort((a, b) => a - b);
    const at = (part: number): number => (late[Math.ceil(late.length * part) - 1] as number) / 1e3;
    block.set("loopDelayMean", late.reduce((sum, ms) => sum + ms, 0) / late.length / 1e3);
    block.set("loopDelayP99", at(0.99));
    this.#longest = this.#longest.filter(({ at: noted }) => now - noted < LONGEST_OF_MS);
    this.#longest.push({ at: now, ms: late.at(-1) as number });
    block.set("loopDelayMax", Math.max(...this.#longest.map(({ ms }) => ms)) / 1e3);
    this.#late = [];
  }

  /** Decoding is an estimate: no more of it than JavaScript took, so that both parts only grow; the rest comes later. */
  #splitScript(): void {
    const { block, timing } = this.#options;
    const script = block.get("scriptSeconds");
    const seconds = script - this.#scriptSeconds;
    const decoding = Math.min(seconds, timing.decodeSeconds - this.#decodeSeconds);
    block.set("decodeSeconds", block.get("decodeSeconds") + decoding);
    block.set("serviceSeconds", block.get("serviceSeconds") + seconds - decoding);
    this.#scriptSeconds = script;
    this.#decodeSeconds += decoding;
  }

  #collected(entry: PerformanceEntry): void {
    const { detail } = entry as PerformanceEntry & { readonly detail?: { readonly kind?: number } };
    const index = GC_KINDS.indexOf(KIND_OF.get(detail?.kind ?? 0) ?? "minor");
    const { head } = this.#options.block;
    head[WORKER_GC + index] = (head[WORKER_GC + index] as number) + 1;
    head[WORKER_GC_SECONDS + index] = (head[WORKER_GC_SECONDS + index] as number) + entry.duration / 1e3;
  }
}
