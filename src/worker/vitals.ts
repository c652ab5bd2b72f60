/**
 * What is found out about a worker once a second, and not with each request: how late its event loop is, what garbage
 * collection takes, what decoding takes, its heap, its descriptors, its oldest request. Written to its block of the
 * scoreboard; whatever counts only grows. Costs some 50 µs a second (event loop delay is sampled by Node's own timer).
 */
import { constants, monitorEventLoopDelay, type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import { GC_KINDS, type GcKind } from "../base/measured.ts";
import type { Timing } from "../connection/timing.ts";
import type { OpenDescriptors } from "../os/open-descriptors.ts";
import { WORKER_GC, WORKER_GC_SECONDS, type WorkerBlock } from "../os/scoreboard.ts";

const EVERY_MS = 1_000;
/** How often the loop is asked, ms. What it is late is measured from there. */
const RESOLUTION_MS = 20;
const NS = 1e9;

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
  readonly #delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  readonly #collections: PerformanceObserver;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #scriptSeconds: number;
  #decodeSeconds: number;

  constructor(options: VitalsOptions) {
    this.#options = options;
    this.#scriptSeconds = options.block.get("scriptSeconds");
    this.#decodeSeconds = options.timing.decodeSeconds;
    this.#delay.enable();
    this.#collections = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) this.#collected(entry);
    });
    this.#collections.observe({ entryTypes: ["gc"] });
  }

  /** Call it every tick; `now`: ms. */
  look(now: number): void {
    if (now - this.#lookedAt < EVERY_MS) return;
    this.#lookedAt = now;
    const { block, timing, descriptors, connections } = this.#options;
    this.#readDelay();
    this.#splitScript();
    block.set("openFds", descriptors.count(connections()));
    block.set("heapBytes", getHeapStatistics().used_heap_size);
    block.set("oldestSeconds", timing.oldestSeconds());
  }

  end(): void {
    this.#delay.disable();
    this.#collections.disconnect();
  }

  #readDelay(): void {
    const { block } = this.#options;
    const late = (ns: number): number => Math.max(0, ns / NS - RESOLUTION_MS / 1e3);
    const none = this.#delay.count === 0;
    block.set("loopDelayMean", none ? 0 : late(this.#delay.mean));
    block.set("loopDelayP99", none ? 0 : late(this.#delay.percentile(99)));
    block.set("loopDelayMax", none ? 0 : late(this.#delay.max));
    this.#delay.reset();
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
