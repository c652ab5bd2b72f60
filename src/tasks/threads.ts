/**
 * The threads of one pool, kept at their number by piscina: one that dies is replaced, and what it was doing is
 * rejected. Piscina gives up replacing when a thread dies while it starts; then all of them are made anew.
 */
import { fileURLToPath } from "node:url";
import { Piscina } from "piscina";
import { type HandOver, type Hello, KEPT_BYTES, PROGRESS, type Reply, type ThreadData } from "./messages.ts";

/** Hand-overs to one thread: one that runs, and the next, so that it need not wait for this event loop. */
export const HAND_OVERS_PER_THREAD = 2;

/** Before threads that cannot be started are tried again, ms. */
const PAUSE_MS = 1_000;

const THREAD_FILE = fileURLToPath(new URL("./thread.js", import.meta.url));

export interface ThreadsOptions {
  readonly module: URL;
  readonly count: number;
}

export class Threads {
  readonly count: number;
  readonly #module: URL;
  readonly #progress: Int32Array;
  readonly #kept: Buffer;
  #piscina: Piscina;
  #pause: NodeJS.Timeout | undefined;
  #closed = false;

  constructor({ module, count }: ThreadsOptions) {
    this.count = count;
    this.#module = module;
    const places = count * HAND_OVERS_PER_THREAD;
    this.#progress = new Int32Array(new SharedArrayBuffer(places * PROGRESS.words * Int32Array.BYTES_PER_ELEMENT));
    this.#kept = Buffer.from(new SharedArrayBuffer(places * KEPT_BYTES));
    this.#piscina = this.#open();
  }

  /** Has every thread load the module. Rejects when a thread ended over it. */
  async hello(): Promise<Hello> {
    const replies = await Promise.all(Array.from({ length: this.count }, () => this.#run("hello")));
    return replies[0] as Hello;
  }

  /** Rejects when the thread died, and only then. At most HAND_OVERS_PER_THREAD for each thread may be under way. */
  handOver(tasks: HandOver): Promise<Reply> {
    Atomics.store(this.#progress, tasks.place * PROGRESS.words + PROGRESS.task, 0);
    Atomics.store(this.#progress, tasks.place * PROGRESS.words + PROGRESS.kept, 0);
    return this.#run(tasks) as Promise<Reply>;
  }

  /** Which task of a hand-over runs, or ran last, from 1; 0: it has not begun. */
  reached(place: number): number {
    return Atomics.load(this.#progress, place * PROGRESS.words + PROGRESS.task);
  }

  /** How many results of a hand-over are kept, and where. */
  kept(place: number): { readonly count: number; readonly bytes: Buffer } {
    const count = Atomics.load(this.#progress, place * PROGRESS.words + PROGRESS.kept);
    return { count, bytes: this.#kept.subarray(place * KEPT_BYTES, (place + 1) * KEPT_BYTES) };
  }

  /** Ends the thread that runs this hand-over; it will be rejected. */
  kill(place: number): void {
    const id = Atomics.load(this.#progress, place * PROGRESS.words + PROGRESS.thread);
    void this.#piscina.threads.find(({ threadId }) => threadId === id)?.terminate();
  }

  /** Ends all threads, whatever they do. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#pause);
    await this.#piscina.destroy();
  }

  async #run(message: "hello" | HandOver): Promise<unknown> {
    try {
      return await this.#piscina.run(message);
    } catch (error) {
      this.#lookAfter();
      throw error;
    }
  }

  #open(): Piscina {
    const workerData: ThreadData = { module: this.#module.href, progress: this.#progress, kept: this.#kept };
    const piscina = new Piscina({
      filename: THREAD_FILE,
      name: "run",
      minThreads: this.count,
      maxThreads: this.count,
      idleTimeout: Number.POSITIVE_INFINITY,
      concurrentTasksPerWorker: HAND_OVERS_PER_THREAD,
      maxQueue: this.count * HAND_OVERS_PER_THREAD,
      workerData,
    });
    // A thread that died of something while it ran no task.
    piscina.on("error", () => this.#lookAfter());
    return piscina;
  }

  #lookAfter(): void {
    if (this.#closed || this.#pause || this.#piscina.threads.length >= this.count) return;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#piscina.threads.length >= this.count) return;
      const old = this.#piscina;
      this.#piscina = this.#open();
      void old.close();
    }, PAUSE_MS).unref();
  }
}
