/**
 * What runs in a thread of a pool: piscina loads this file there and calls `run` with what the pool hands over. The
 * user's module is loaded with the first message, and what it throws then is an answer: a thread that died of it would
 * be replaced for ever.
 */
import { threadId, workerData } from "node:worker_threads";
import {
  type HandOver,
  type Hello,
  KEPT_BYTES,
  PROGRESS,
  type Reply,
  type ThreadData,
  type ThrownError,
} from "./messages.ts";
import { Packer, prepare, Unpacker, writeAlone } from "./parcel.ts";

type Task = (...args: unknown[]) => unknown;

const { module, progress, kept } = workerData as ThreadData;

let loading: Promise<{ readonly names: readonly string[]; readonly tasks: readonly Task[] }> | undefined;

async function load(): Promise<{ names: string[]; tasks: Task[] }> {
  const exported: Readonly<Record<string, unknown>> = await import(module);
  // A module's names are sorted, so that every thread numbers them alike.
  const names = Object.keys(exported).filter((name) => typeof exported[name] === "function");
  return { names, tasks: names.map((name) => exported[name] as Task) };
}

function describe(thrown: unknown): ThrownError {
  if (!(thrown instanceof Error)) return { name: "Error", message: String(thrown), stack: "" };
  const { name, message, stack = "" } = thrown;
  const { code } = thrown as NodeJS.ErrnoException;
  return typeof code === "string" ? { name, message, stack, code } : { name, message, stack };
}

async function hello(): Promise<Hello> {
  try {
    loading ??= load();
    return { names: (await loading).names };
  } catch (error) {
    return { failed: describe(error) };
  }
}

/** Keeps the results of one hand-over, one after the other. */
class Keeper {
  readonly #area: Buffer;
  readonly #at: number;
  #end = 0;

  constructor(place: number) {
    this.#area = Buffer.from(kept.buffer, kept.byteOffset + place * KEPT_BYTES, KEPT_BYTES);
    this.#at = place * PROGRESS.words + PROGRESS.kept;
  }

  /** After one that does not fit no more are kept. */
  add(succeeded: boolean, prepared: unknown): void {
    if (this.#end < 0 || this.#end === this.#area.length) return;
    this.#area.writeUInt8(succeeded ? 1 : 0, this.#end);
    this.#end = writeAlone(prepared, this.#area, this.#end + 1);
    if (this.#end >= 0) Atomics.add(progress, this.#at, 1);
  }
}

async function runAll({ place, tasks: count, parcel }: HandOver): Promise<Reply> {
  loading ??= load();
  const { tasks } = await loading;
  const from = new Unpacker(parcel);
  const to = new Packer();
  const keeper = new Keeper(place);
  const at = place * PROGRESS.words;
  const startedAt = performance.now();
  Atomics.store(progress, at + PROGRESS.thread, threadId);
  for (let number = 1; number <= count; number++) {
    Atomics.store(progress, at + PROGRESS.task, number);
    let succeeded = true;
    let prepared: unknown;
    try {
      const task = tasks[from.number()] as Task;
      const args = Array.from({ length: from.number() }, () => from.value());
      let value = task(...args);
      if (typeof (value as PromiseLike<unknown> | undefined)?.then === "function") value = await value;
      prepared = prepare(value, { keep: true });
    } catch (error) {
      succeeded = false;
      prepared = prepare(describe(error), { keep: true });
    }
    to.number(succeeded ? 1 : 0);
    to.value(prepared);
    // The last one too: the reply may not have been read yet when another hand-over kills the thread.
    keeper.add(succeeded, prepared);
  }
  return { elapsedMs: performance.now() - startedAt, parcel: to.seal() };
}

/** Piscina calls it with "hello", or with tasks. */
export function run(message: "hello" | HandOver): Promise<Hello | Reply> {
  return message === "hello" ? hello() : runAll(message);
}
