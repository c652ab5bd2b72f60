/**
 * The clocks of a server, read every 25 ms while a load runs, so that they can be known at any moment of it: the edges
 * of the measured window lie inside the load processes, which say only afterwards when they were. Between two readings
 * the load is steady and a straight line will do. A reading takes about 0.1 ms of a client's core.
 */
import { coreBusyNs, cpuNs } from "./cpu.ts";

interface Reading {
  epochMs: number;
  serverNs: number;
  /** Of the server's core, whoever used it. */
  coreNs: number;
}

/** What was used between two moments. */
export interface Usage {
  serverNs: number;
  coreNs: number;
  /** The longer of the two stretches, one around each edge, over which a straight line had to do. */
  edgeGapMs: number;
}

const EVERY_MS = 25;

const now = (): number => performance.timeOrigin + performance.now();

/** The readings around `epochMs` as one, on the line between them. */
function interpolate(readings: readonly Reading[], epochMs: number): Reading & { gapMs: number } {
  const index = readings.findIndex((reading) => reading.epochMs >= epochMs);
  const after = readings[index];
  const before = readings[index - 1];
  if (after === undefined || before === undefined) throw new Error("the window is not within the time of the load");
  const gapMs = after.epochMs - before.epochMs;
  const part = (epochMs - before.epochMs) / gapMs;
  const between = (from: number, to: number): number => from + (to - from) * part;
  const serverNs = between(before.serverNs, after.serverNs);
  return { epochMs, serverNs, coreNs: between(before.coreNs, after.coreNs), gapMs };
}

export class Clocks {
  readonly #readings: Reading[] = [];
  readonly #pids: readonly number[];
  readonly #core: number | undefined;
  readonly #timer: NodeJS.Timeout;
  #gone: unknown;

  /** Reads from now on, until `stop`. */
  constructor(pids: readonly number[], core: number | undefined) {
    this.#pids = pids;
    this.#core = core;
    this.#timer = setInterval(() => this.#read(), EVERY_MS);
    this.#read();
  }

  #read(): void {
    try {
      const coreNs = this.#core === undefined ? 0 : coreBusyNs(this.#core);
      this.#readings.push({ epochMs: now(), serverNs: cpuNs(this.#pids), coreNs });
    } catch (error) {
      this.#gone = error;
      clearInterval(this.#timer);
    }
  }

  /** Ends the reading, with one last: a window may have closed just now. */
  stop(): void {
    clearInterval(this.#timer);
    this.#read();
  }

  /** Throws when the server ended meanwhile. */
  between(fromEpochMs: number, toEpochMs: number): Usage {
    if (this.#gone !== undefined) throw this.#gone;
    const from = interpolate(this.#readings, fromEpochMs);
    const to = interpolate(this.#readings, toEpochMs);
    return {
      serverNs: to.serverNs - from.serverNs,
      coreNs: to.coreNs - from.coreNs,
      edgeGapMs: Math.max(from.gapMs, to.gapMs),
    };
  }
}
