/**
 * Watches what a worker's requests share, its event loop and its memory, and has the gate refuse a part of them while
 * one is over its bound. The part grows for as long as that lasts and shrinks slowly afterwards, and between half the
 * bound and the bound it stays: so it settles where the worker just keeps up, instead of flapping.
 */
import type { BusyCause } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Deadline, Shed } from "../base/settings.ts";
import type { Gate } from "../connection/gate.ts";
import { TICK_MS } from "../engine/layout.ts";

/** How late the loop is, is the median of so many ticks: one long turn is not an overload. */
const TICKS = 5;
const GROW = 0.1;
const SHRINK = 0.05;
/** Something is always let through: it shows when things get better. */
const MOST = 0.9;
const CALM = 0.5;
/** Memory does not come back as quickly as it goes. */
const CALM_MEMORY = 0.95;
const MEMORY_EVERY_MS = 1_000;

export interface SheddingOptions {
  readonly gate: Gate;
  readonly log: Logger;
  /** Resident memory of this process, bytes. */
  readonly memory: () => number;
}

export class Shedding {
  readonly #options: SheddingOptions;
  readonly #late: number[] = [];
  #loopDelay: Deadline = "off";
  #mostMemory: number | "off" = "off";
  #loopShare = 0;
  #memoryShare = 0;
  #lastTick = 0;
  #lastMemory = 0;

  constructor(options: SheddingOptions) {
    this.#options = options;
  }

  configure({ loopDelay, memory }: Shed): void {
    this.#loopDelay = loopDelay;
    this.#mostMemory = memory;
  }

  /** Every TICK_MS, or whenever the loop comes to it. `now`: engine clock, ms. */
  tick(now: number): void {
    if (this.#lastTick !== 0) this.#watchLoop(Math.max(0, now - this.#lastTick - TICK_MS));
    this.#lastTick = now;
    if (now - this.#lastMemory >= MEMORY_EVERY_MS) {
      this.#lastMemory = now;
      this.#watchMemory();
    }
    this.#shed();
  }

  #watchLoop(lateMs: number): void {
    this.#late.push(lateMs);
    if (this.#late.length > TICKS) this.#late.shift();
    const bound = this.#loopDelay === "off" ? Number.POSITIVE_INFINITY : this.#loopDelay;
    const median = this.#late.toSorted((a, b) => a - b)[Math.floor(this.#late.length / 2)] as number;
    this.#loopShare = next(this.#loopShare, this.#late.length < TICKS ? 0 : median / bound, CALM);
  }

  #watchMemory(): void {
    const used = this.#mostMemory === "off" ? 0 : this.#options.memory() / this.#mostMemory;
    this.#memoryShare = next(this.#memoryShare, used, CALM_MEMORY);
  }

  #shed(): void {
    const { gate, log } = this.#options;
    const share = Math.max(this.#loopShare, this.#memoryShare);
    const before = gate.shared;
    if (share === 0 && before === 0) return;
    const because: BusyCause = this.#loopShare >= this.#memoryShare ? "loop-delay" : "memory";
    gate.share(share, because);
    if (before === 0) log.warn({ because }, `overloaded (${because}): part of the requests is refused`);
    else if (share === 0) log.info("no longer overloaded");
  }
}

/** `ratio`: of what there is to the bound. */
function next(share: number, ratio: number, calm: number): number {
  if (ratio > 1) return Math.min(MOST, share + GROW);
  // In steps of its own, so that it ends at 0.
  return ratio < calm ? Math.max(0, Math.round((share - SHRINK) * 100) / 100) : share;
}
