/** definePool: a module whose exported functions run in threads of their own. */
import { HeadraceError } from "../base/errors.ts";
import { DEFAULT_TASKS } from "../base/settings.ts";
import { POOL_KINDS, TASK_KINDS } from "../config/bounds.ts";
import { type NumericKind, Wrong } from "../config/kinds.ts";
import { nearest } from "../config/nearest.ts";
import { TaskPool } from "./pool.ts";
import type { TaskOptions } from "./task.ts";

/** "10s", "500ms", "2m", "1h" or "off". */
type Duration = `${number}${"ms" | "s" | "m" | "h"}` | "off";

/** The functions that a module exports. */
export type TaskName<Module> = {
  [Name in keyof Module]: Module[Name] extends (...args: never[]) => unknown ? Name : never;
}[keyof Module] &
  string;
export type TaskArgs<Module, Name extends keyof Module> = Module[Name] extends (...args: infer Args) => unknown
  ? Args
  : never;
export type TaskValue<Module, Name extends keyof Module> = Module[Name] extends (...args: never[]) => infer Value
  ? Awaited<Value>
  : never;

export interface PoolDefinition {
  /** For errors and the log. */
  readonly name: string;
  /** Each function that it exports is a task: `new URL("./digest.js", import.meta.url)`. */
  readonly module: URL;
  /** Threads in each worker. Default: the CPUs divided by the workers. `tasks.threads` overrides it. */
  readonly threads?: number | "auto";
  /** Tasks that may wait. Default 1,024. `tasks.queue` overrides it. */
  readonly queue?: number;
  /** A task that waited longer is refused, however busy the pool is. Default 1 s. */
  readonly maxQueueDelay?: Duration;
  /** A task that runs longer is ended with its thread, which is replaced. Default 30 s. */
  readonly maxRunTime?: Duration;
}

export interface Pool<Module = unknown> {
  readonly name: string;
  /** Tasks that wait for a thread. */
  readonly waiting: number;
  /**
   * Runs a function of the module in a thread. Arguments and value are copied: plain data and bytes. Rejects with what
   * it throws, `ServerBusy` when it was not begun, `DeadlineExceeded` when it ran for too long, `thread-died`.
   */
  run<Name extends TaskName<Module>>(
    name: Name,
    args: TaskArgs<Module, Name>,
    options?: TaskOptions,
  ): Promise<TaskValue<Module, Name>>;
  /** Ends the threads. The worker does it for the pools of its services. */
  close(): Promise<void>;
}

const PROPERTIES = ["name", "module", "threads", "queue", "maxQueueDelay", "maxRunTime"];
const DEFAULT_QUEUE_MS = 1_000;
const DEFAULT_RUN_MS = 30_000;

function invalid(option: string, problem: string, allowed: string): HeadraceError {
  const message = `definePool: ${option}: ${problem}; allowed: ${allowed}`;
  return new HeadraceError("service-invalid", message, { option, allowed });
}

function read<T>(option: string, given: unknown, kind: NumericKind<T>, otherwise: T): T {
  if (given === undefined) return otherwise;
  const value = kind.read(given);
  if (value instanceof Wrong) throw invalid(option, value.problem, value.allowed ?? kind.allowed);
  return value;
}

/** Threads start with the worker, or with the first task. Throws `service-invalid`, naming the property. */
export function definePool<Module = unknown>(definition: PoolDefinition): Pool<Module> {
  if (typeof definition !== "object" || definition === null) {
    throw new HeadraceError("service-invalid", "definePool: expects an object with name and module");
  }
  for (const name of Object.keys(definition)) {
    if (PROPERTIES.includes(name)) continue;
    const near = nearest(name, PROPERTIES);
    throw invalid(name, `unknown${near ? `; did you mean ${near}?` : ""}`, PROPERTIES.join(", "));
  }
  const { name, module } = definition as Partial<PoolDefinition>;
  if (typeof name !== "string" || name === "") throw invalid("name", "not a text", "a text of one character or more");
  if (!(module instanceof URL) || module.protocol !== "file:") {
    throw invalid("module", "not the URL of a file", 'new URL("./tasks.js", import.meta.url)');
  }
  const { threads, queue } = DEFAULT_TASKS;
  const pool = new TaskPool({
    name,
    module,
    declared: {
      threads: read("threads", definition.threads, TASK_KINDS.threads, threads),
      queue: read("queue", definition.queue, TASK_KINDS.queue, queue),
    },
    maxQueueDelay: read("maxQueueDelay", definition.maxQueueDelay, POOL_KINDS.maxQueueDelay, DEFAULT_QUEUE_MS),
    maxRunTime: read("maxRunTime", definition.maxRunTime, POOL_KINDS.maxRunTime, DEFAULT_RUN_MS),
  });
  return pool as unknown as Pool<Module>;
}
