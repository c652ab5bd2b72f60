/**
 * Tells where a worker hangs. Its own event loop cannot, once it stands still, and the primary sees only that the
 * clock stopped: so a thread of the worker watches a heartbeat, and shortly before the primary kills the worker it
 * asks V8 for the stack of the main thread and logs it. What hangs outside JavaScript has no stack to show.
 * Costs about 8 MiB in each worker; none with `timeouts.hang: off` at the start.
 */
import { Worker } from "node:worker_threads";
import type { Deadline } from "../base/settings.ts";

const THREAD = new URL("./stack-thread.js", import.meta.url);

/** Words of the memory that both threads share. */
export const BEAT = { count: 0, hangMs: 1, words: 2 } as const;

/** What the thread needs to log a line. */
export interface StackThreadData extends StackLog {
  readonly beat: SharedArrayBuffer;
}

/** Where the worker logs, and as whom. */
export interface StackLog {
  readonly worker: number;
  readonly pretty: boolean;
  readonly file: string | undefined;
}

export interface StackWatch {
  /** To be called by the event loop more than once a second. */
  beat(): void;
  /** The limit has changed. */
  limit(hangMs: Deadline): void;
}

const NO_WATCH: StackWatch = { beat: () => {}, limit: () => {} };

export function watchStack(log: StackLog, hangMs: Deadline): StackWatch {
  if (hangMs === "off") return NO_WATCH;
  const shared = new SharedArrayBuffer(BEAT.words * Int32Array.BYTES_PER_ELEMENT);
  const words = new Int32Array(shared);
  Atomics.store(words, BEAT.hangMs, hangMs);
  const workerData: StackThreadData = { beat: shared, ...log };
  const thread = new Worker(THREAD, {
    workerData,
    resourceLimits: { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  });
  // Without it the worker serves as well.
  thread.on("error", () => {});
  thread.unref();
  return {
    beat: () => void Atomics.add(words, BEAT.count, 1),
    limit: (ms) => void Atomics.store(words, BEAT.hangMs, ms === "off" ? 0 : ms),
  };
}
