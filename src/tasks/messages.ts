/** What a pool and its threads say to each other. A hand-over is a batch of tasks, run one after the other. */
import type { Parcel } from "./parcel.ts";

/** Given to each thread at its start. */
export interface ThreadData {
  /** URL of the module whose functions are the tasks. */
  readonly module: string;
  /** PROGRESS.words for each hand-over that can be under way. */
  readonly progress: Int32Array;
  /** KEPT_BYTES for each, shared. */
  readonly kept: Uint8Array;
}

/**
 * Words of a hand-over's progress, which the pool reads when the thread has died or takes too long: the task that it has
 * reached, the thread, and how many results it has kept.
 */
export const PROGRESS = { words: 3, task: 0, thread: 1, kept: 2 } as const;

/**
 * Results of tasks whose hand-over goes on, each as `writeAlone` has it: the first so many, as far as they fit. So the
 * thread does not take them along when it dies over another task.
 */
export const KEPT_BYTES: number = 64 * 1024;

export interface HandOver {
  /** Where its progress is kept. */
  readonly place: number;
  readonly tasks: number;
  /** Of each task: its function's place in `Hello.names`, the number of arguments, the arguments. */
  readonly parcel: Parcel;
}

/** Of each task: 1 and its value, or 0 and a ThrownError. */
export interface Reply {
  readonly elapsedMs: number;
  readonly parcel: Parcel;
}

/** An error without what cannot travel. */
export interface ThrownError {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
  readonly code?: string;
}

/** How loading the module went. */
export type Hello = { readonly names: readonly string[] } | { readonly failed: ThrownError };
