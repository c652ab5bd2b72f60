/**
 * What runs in a thread of a pool: piscina loads this file there and calls `run` with what the pool hands over. The
 * user's module is loaded with the first message, and what it throws then is an answer: a thread that died of it would
 * be replaced for ever.
 */
import { threadId, workerData } from "node:worker_threads";
import { type HandOver, type Hello, PROGRESS, type Reply, type ThreadData, type ThrownError } from "./messages.ts";
import { Packer, prepare, Unpacker } from "./parcel.ts";

type Task = (...args: unknown[]) => unknown;

const { module, progress } = workerData as ThreadData;

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

async function runAll({ place, tasks: count, parcel }: HandOver): Promise<Reply> {
  loading ??= load();
  const { tasks } = await loading;
  const from = new Unpacker(parcel);
  const to = new Packer();
  const at = place * PROGRESS.words;
  const startedAt = performance.now();
  Atomics.store(progress, at + PROGRESS.thread, threadId);
  for (let number = 1; number <= count; number++) {
    Atomics.store(progress, at + PROGRESS.task, number);
    try {
      const task = tasks[from.number()] as Task;
      const args = Array.from({ length: from.number() }, () => from.value());
      let value = task(...args);
      if (typeof (value as PromiseLike<unknown> | undefined)?.then === "function") value = await value;
      const prepared = prepare(value, { keep: true });
      to.number(1);
      to.value(prepared);
    } catch (error) {
      to.number(0);
      to.value(prepare(describe(error), { keep: true }));
    }
  }
  return { elapsedMs: performance.now() - startedAt, parcel: to.seal() };
}

/** Piscina calls it with "hello", or with tasks. */
export function run(message: "hello" | HandOver): Promise<Hello | Reply> {
  return message === "hello" ? hello() : runAll(message);
}
