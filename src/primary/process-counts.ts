/**
 * CPU time, memory and descriptor limits of the primary and of each slot's processes, for metrics: read from /proc, so
 * at most once a second whoever asks. A slot's CPU time is that of all processes it ever had: what one had used when it
 * was last looked at stays when it has gone. Its memory is that of those that live.
 */
import type { ProcessFigures } from "../admin/metrics-reading.ts";
import { descriptorLimitOf, ownDescriptors } from "../os/descriptor-counts.ts";
import { sampleUsage } from "./usage.ts";

/** One process: the same object as long as it is the same one. */
interface Counted {
  readonly pid: number;
  readonly slot: number;
}

const FRESH_MS = 1_000;

export class ProcessCounts {
  readonly #living: () => readonly Counted[];
  /** CPU milliseconds by process, as of the last look. */
  readonly #last = new Map<Counted, number>();
  /** By slot: of processes that have gone. */
  readonly #retired = new Map<number, number>();
  #figures: Promise<readonly ProcessFigures[]> | undefined;
  #readAt: number = Number.NEGATIVE_INFINITY;

  constructor(living: () => readonly Counted[]) {
    this.#living = living;
  }

  /** Not older than a second. `openFds` is the primary's alone. */
  read(): Promise<readonly ProcessFigures[]> {
    if (!this.#figures || performance.now() - this.#readAt >= FRESH_MS) {
      this.#readAt = performance.now();
      this.#figures = this.#read();
    }
    return this.#figures;
  }

  async #read(): Promise<readonly ProcessFigures[]> {
    const living = this.#living();
    const [usage, limits, openFds, maxFds] = await Promise.all([
      sampleUsage([process.pid, ...living.map(({ pid }) => pid)]),
      Promise.all(living.map(({ pid }) => descriptorLimitOf(pid))),
      ownDescriptors(),
      descriptorLimitOf(process.pid),
    ]);
    for (const each of living) {
      const cpuMs = usage.get(each.pid)?.cpuMs;
      if (cpuMs !== undefined) this.#last.set(each, cpuMs);
    }
    for (const [each, cpuMs] of this.#last) {
      if (living.includes(each)) continue;
      this.#last.delete(each);
      this.#retired.set(each.slot, (this.#retired.get(each.slot) ?? 0) + cpuMs);
    }
    const own = usage.get(process.pid);
    const primary = {
      process: "primary",
      ...(own ? { cpuSeconds: own.cpuMs / 1000, memoryBytes: own.memoryBytes } : {}),
      ...(openFds === undefined ? {} : { openFds }),
      ...(maxFds === undefined ? {} : { maxFds }),
    };
    const slots = [...new Set([...this.#retired.keys(), ...living.map(({ slot }) => slot)])].sort((a, b) => a - b);
    return [primary, ...slots.map((slot) => this.#ofSlot(slot, living, usage, limits))];
  }

  #ofSlot(
    slot: number,
    living: readonly Counted[],
    usage: Awaited<ReturnType<typeof sampleUsage>>,
    limits: readonly (number | undefined)[],
  ): ProcessFigures {
    let cpuMs = this.#retired.get(slot) ?? 0;
    for (const [each, ms] of this.#last) if (each.slot === slot) cpuMs += ms;
    const theirs = living.flatMap((each, index) =>
      each.slot === slot ? [{ memory: usage.get(each.pid)?.memoryBytes, limit: limits[index] }] : [],
    );
    const memory = theirs.reduce((sum, each) => sum + (each.memory ?? 0), 0);
    const limit = theirs.find((each) => each.limit !== undefined)?.limit;
    return {
      process: String(slot),
      cpuSeconds: cpuMs / 1000,
      ...(memory > 0 ? { memoryBytes: memory } : {}),
      ...(limit === undefined ? {} : { maxFds: limit }),
    };
  }
}
