/**
 * A pool of threads with a bounded queue in front. Tasks are kept here, in the order of their priority, until a thread
 * can take them; then they are handed over in batches that take about BATCH_MS, so that handing over never costs more
 * than the work. Every task ends: with its value, its error, ServerBusy (it was never begun) or DeadlineExceeded.
 *
 * A thread that dies takes one task with it, the one that it was running; those behind that one go back to the head of
 * the queue, and the results of those in front of it are kept (messages.ts).
 */
import { availableParallelism } from "node:os";
import { DeadlineExceeded, HeadraceError, messageOf, ServerBusy } from "../base/errors.ts";
import { DEFAULT_SHED, type Deadline, type Tasks } from "../base/settings.ts";
import { within } from "../base/within.ts";
import type { HandOver, Reply, ThrownError } from "./messages.ts";
import { checkModule, deadlyModule, emptyModule, failedModule, slowModule } from "./module-problem.ts";
import { LEAST_TASKS, Overload } from "./overload.ts";
import { Packer, prepare, readAlone, Unpacker } from "./parcel.ts";
import { type Priority, RANK, TaskQueue } from "./queue.ts";
import { type Kind, Task, type TaskOptions } from "./task.ts";
import { HAND_OVERS_PER_THREAD, Threads } from "./threads.ts";

/** What one hand-over is meant to take, ms: some ten times what it costs. */
const BATCH_MS = 0.25;
const BATCH_TASKS = 64;
/** While longer tasks run nothing is handed over before a thread is idle: another one might be sooner. */
const AHEAD_MS = 2;
/** How long a long one is remembered. */
const FORGET = 0.95;
/** Until it is known better. */
const FIRST_COST_MS = 1;
const LEAST_COST_MS = 0.0005;
/** Share of the newest measurement in a mean. */
const NEWEST = 0.2;
/** How often what waits and what runs is looked at, ms. */
const LOOK_MS = 50;
/** A full queue counts as such until it is so empty again. */
const ROOM_AGAIN = 0.75;
const LOADING_MS = 30_000;

/** What the server says of all its pools. */
export interface PoolConfig {
  /** Over what the pool declares. */
  readonly tasks: Readonly<Partial<Tasks>>;
  /** Worker processes, which share the CPUs. */
  readonly workers: number;
  readonly queueDelay: Deadline;
}

interface PoolSettings {
  readonly threads: number;
  readonly queue: number;
}

export interface PoolOptions {
  readonly name: string;
  readonly module: URL;
  readonly maxQueueDelay: Deadline;
  readonly maxRunTime: Deadline;
  readonly declared: Tasks;
}

interface Batch extends Pick<HandOver, "place"> {
  readonly tasks: readonly Task[];
  /** The task that it has reached, and when that was first seen. */
  reached: number;
  seenAt: number;
  killed: boolean;
  /** Tasks that have ended with a result that was kept, and where the next one is. */
  settled: number;
  keptAt: number;
}

function settingsOf(declared: Tasks, { tasks, workers }: Pick<PoolConfig, "tasks" | "workers">): PoolSettings {
  const { threads, queue } = { ...declared, ...tasks };
  const share = Math.max(1, Math.floor(availableParallelism() / workers));
  return { threads: threads === "auto" ? share : threads, queue };
}

const ms = (deadline: Deadline): number => (deadline === "off" ? Number.POSITIVE_INFINITY : deadline);

export class TaskPool {
  readonly name: string;
  readonly #module: URL;
  readonly #maxQueueMs: number;
  readonly #maxRunMs: number;
  readonly #overload: Overload;
  readonly #queue = new TaskQueue<Task>();
  readonly #kinds = new Map<string, Kind>();
  readonly #running = new Set<Batch>();
  readonly #places: number[] = [];
  readonly #declared: Tasks;
  #settings: PoolSettings;
  #threads: Threads | undefined;
  #loaded = false;
  /** Waiting for the module is no overload, performance.now(). */
  #loadedAt = 0;
  #starting: Promise<void> | undefined;
  #closed = false;
  /** Why it never started. */
  #failure: unknown;
  #meanMs = FIRST_COST_MS;
  #full = false;
  #pressed = false;
  #onPressure: ((pressed: boolean) => void) | undefined;
  #dispatching = false;
  #look: NodeJS.Timeout | undefined;

  constructor({ name, module, maxQueueDelay, maxRunTime, declared }: PoolOptions) {
    this.name = name;
    this.#module = module;
    this.#maxQueueMs = ms(maxQueueDelay);
    this.#maxRunMs = ms(maxRunTime);
    this.#declared = declared;
    this.#settings = settingsOf(declared, { tasks: {}, workers: 1 });
    this.#overload = new Overload(ms(DEFAULT_SHED.queueDelay));
  }

  /** Tasks that wait for a thread. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** While it is true, `refuses` may be. */
  get pressed(): boolean {
    return this.#pressed;
  }

  /** `listener` hears when `pressed` changes. */
  onPressure(listener: (pressed: boolean) => void): void {
    this.#onPressure = listener;
  }

  /** The number of threads counts only before the start. */
  configure(config: PoolConfig): void {
    const settings = settingsOf(this.#declared, config);
    this.#settings = this.#threads ? { ...settings, threads: this.#threads.count } : settings;
    this.#overload.targetMs = ms(config.queueDelay);
  }

  /** Starts the threads and loads the module in each. Throws `service-invalid`, `service-failed`. Else the first task does it. */
  start(): Promise<void> {
    this.#starting ??= this.#load();
    return this.#starting;
  }

  /** Ends the threads. What waits is refused; what runs is cut off. */
  async close(): Promise<void> {
    this.#closed = true;
    for (let task = this.#queue.first(); task; task = this.#queue.first()) {
      this.cancel(task, this.#failure ?? new ServerBusy("closing", `pool ${this.name} is closed`));
    }
    clearInterval(this.#look);
    await this.#threads?.close();
  }

  /** Whether a task of this priority would be refused now. For those who can spare themselves the work before it. */
  refuses(priority: Priority): ServerBusy | undefined {
    return this.#pressed ? this.#problem(RANK[priority], this.#limitMs(this.#meanMs)) : undefined;
  }

  /** Runs the function `name` of the module in a thread. Arguments and value are copied; they must be plain data. */
  run(name: string, args: readonly unknown[], options: TaskOptions = {}): Promise<unknown> {
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const task = this.begin(name, args, options.priority ?? "normal");
    if (signal && !task.ended) task.listen(signal, () => this.cancel(task, signal.reason));
    return task.promise;
  }

  /** As `run`, for those who cancel by themselves. `withinMs`: it is not begun after that. */
  begin(name: string, args: readonly unknown[], priority: Priority, withinMs: number = Number.POSITIVE_INFINITY): Task {
    const now = performance.now();
    const kind = this.#kindOf(name);
    let prepared: readonly unknown[] = [];
    let problem: unknown;
    try {
      prepared = args.map((arg) => prepare(arg, { keep: false }));
    } catch (error) {
      problem = error;
    }
    const task = new Task(kind, prepared, priority, now, now + withinMs);
    problem ??= this.#admit(task);
    if (problem) {
      task.fail(problem);
      return task;
    }
    this.#queue.push(task);
    if (!this.#starting) void this.start().catch(() => {});
    this.#watch();
    this.#dispatchSoon();
    return task;
  }

  /** Nobody wants it any more. */
  cancel(task: Task, error: unknown): void {
    this.#queue.remove(task);
    task.fail(error);
  }

  // ---- admission ----

  #admit(task: Task): unknown {
    if (this.#failure) return this.#failure;
    if (this.#closed) return new ServerBusy("closing", `pool ${this.name} is closed`);
    if (this.#loaded && task.kind.index === undefined) return this.#unknown(task.kind.name);
    if (this.#queue.size >= this.#settings.queue) this.#press({ full: true });
    const problem = this.#pressed ? this.#problem(task.rank, this.#limitMs(task.kind.costMs)) : undefined;
    if (problem) {
      this.#overload.refused();
      return problem;
    }
    if (this.#queue.size < this.#settings.queue) return undefined;
    const other = this.#queue.lastBelow(task.rank);
    if (other) this.#refuse(other, this.#fullError());
    return undefined;
  }

  #problem(rank: number, limitMs: number): ServerBusy | undefined {
    const { queue, threads } = this.#settings;
    if (this.#queue.size >= queue && !this.#queue.lastBelow(rank)) return this.#fullError();
    // Half of it: as much may still come in its way, and a queue that is never empty is all that the threads need. All of
    // it when they have run out: then it is this event loop that keeps them waiting, and may again.
    const mostMs = this.#running.size < threads ? limitMs : limitMs / 2;
    if (!this.#overload.overloaded || this.#queue.costBefore(rank) / threads < mostMs) return undefined;
    return this.#delayError();
  }

  #limitMs(costMs: number): number {
    return Math.min(this.#maxQueueMs, this.#overload.limitMs((LEAST_TASKS * costMs) / this.#settings.threads));
  }

  #fullError(): ServerBusy {
    return new ServerBusy("queue-full", `pool ${this.name}: ${this.#settings.queue} tasks wait already`);
  }

  #delayError(): ServerBusy {
    return new ServerBusy("queue-delay", `pool ${this.name}: tasks wait too long`);
  }

  #unknown(name: string): HeadraceError {
    const known = [...this.#kinds.values()].flatMap((kind) => (kind.index === undefined ? [] : kind.name)).join(", ");
    return new HeadraceError(
      "usage",
      `pool ${this.name}: its module exports no function ${name}; there are: ${known}`,
      {
        given: name,
        allowed: known,
      },
    );
  }

  #refuse(task: Task, error: ServerBusy): void {
    this.#overload.refused();
    this.cancel(task, error);
  }

  #press({ full = this.#full }: { readonly full?: boolean } = {}): void {
    this.#full = full;
    const pressed = full || this.#overload.overloaded;
    if (pressed === this.#pressed) return;
    this.#pressed = pressed;
    this.#onPressure?.(pressed);
  }

  // ---- from the queue to the threads ----

  /** At the end of this turn: by then all requests that came together have added theirs. */
  #dispatchSoon(): void {
    if (this.#dispatching) return;
    this.#dispatching = true;
    queueMicrotask(() => {
      this.#dispatching = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    if (!this.#loaded || this.#closed) return;
    const now = performance.now();
    while (this.#queue.size > 0) {
      const tasks = this.#nextBatch(now);
      if (tasks.length === 0) break;
      this.#handOver(tasks, now);
    }
    if (this.#queue.size === 0) this.#overload.emptied();
    if (this.#full && this.#queue.size <= ROOM_AGAIN * this.#settings.queue) this.#press({ full: false });
    if (this.#overload.overloaded !== this.#pressed) this.#press();
  }

  /** Nothing while every thread has enough. */
  #nextBatch(now: number): Task[] {
    const { threads } = this.#settings;
    const tasks: Task[] = [];
    let costMs = 0;
    let most = BATCH_TASKS;
    for (let task = this.#queue.first(); task && tasks.length < most; task = this.#queue.first()) {
      if (this.#overdue(task, now)) continue;
      if (tasks.length === 0) {
        const places = (this.#ahead(task) ? HAND_OVERS_PER_THREAD * threads : threads) - this.#running.size;
        if (places <= 0) break;
        most = Math.min(BATCH_TASKS, Math.ceil(this.#queue.size / places));
      } else if (costMs + task.costMs > BATCH_MS) break;
      this.#overload.taken(now, this.#waited(task, now), this.#limitMs(task.kind.costMs));
      this.#queue.remove(task);
      costMs += task.costMs;
      tasks.push(task);
    }
    return tasks;
  }

  /** Rather late than a thread that does nothing. */
  #overloadLimitMs({ kind }: Task): number {
    if (!this.#overload.overloaded) return Number.POSITIVE_INFINITY;
    return this.#limitMs(kind.costMs) * (this.#running.size < this.#settings.threads ? 2 : 1);
  }

  #waited(task: Task, now: number): number {
    return now - Math.max(task.at, this.#loadedAt);
  }

  /** Whether it may be handed over to a thread that is not idle yet: when all of it will be soon. */
  #ahead(task: Task): boolean {
    if (task.kind.mostMs > AHEAD_MS) return false;
    for (const { tasks } of this.#running) if (tasks.some(({ kind }) => kind.mostMs > AHEAD_MS)) return false;
    return true;
  }

  /** Refuses a task that must not be begun any more. */
  #overdue(task: Task, now: number): boolean {
    const waited = this.#waited(task, now);
    if (task.deadlineAt <= now) {
      this.cancel(task, new DeadlineExceeded(`pool ${this.name}: the deadline passed while the task waited`));
    } else if (waited > this.#maxQueueMs || waited > this.#overloadLimitMs(task)) {
      this.#refuse(task, this.#delayError());
    }
    return task.ended;
  }

  #handOver(tasks: readonly Task[], now: number): void {
    const threads = this.#threads as Threads;
    const packer = new Packer();
    for (const { kind, args } of tasks) {
      packer.number(kind.index as number);
      packer.number(args.length);
      for (const arg of args) packer.value(arg);
    }
    const place = this.#places.pop() as number;
    const batch: Batch = { place, tasks, reached: 0, seenAt: now, killed: false, settled: 0, keptAt: 0 };
    this.#running.add(batch);
    threads.handOver({ place, tasks: tasks.length, parcel: packer.seal() }).then(
      (reply) => this.#finished(batch, reply),
      (error: unknown) => this.#died(batch, error),
    );
  }

  #finished(batch: Batch, { elapsedMs, parcel }: Reply): void {
    this.#learn(batch.tasks, elapsedMs);
    const from = new Unpacker(parcel);
    for (const task of batch.tasks) {
      const succeeded = from.number() === 1;
      conclude(task, succeeded, from.value());
    }
    this.#ended(batch);
  }

  /** Ends those that are done although the batch is not. */
  #settleKept(batch: Batch): void {
    const { count, bytes } = (this.#threads as Threads).kept(batch.place);
    while (batch.settled < count) {
      const succeeded = bytes.readUInt8(batch.keptAt) === 1;
      const { value, end } = readAlone(bytes, batch.keptAt + 1);
      conclude(batch.tasks[batch.settled] as Task, succeeded, value);
      batch.settled += 1;
      batch.keptAt = end;
    }
  }

  #died(batch: Batch, error: unknown): void {
    const reached = (this.#threads as Threads).reached(batch.place);
    const { name } = this;
    const lost = batch.killed
      ? new DeadlineExceeded(`pool ${name}: a task ran for more than ${this.#maxRunMs} ms; its thread was ended`)
      : new HeadraceError("thread-died", `pool ${name}: the thread died: ${messageOf(error)}`, {}, { cause: error });
    this.#settleKept(batch);
    const missing = `pool ${name}: the task was done, but what it returned was lost with the thread, which died over another`;
    for (const task of batch.tasks.slice(0, Math.max(0, reached - 1)))
      task.fail(new HeadraceError("thread-died", missing));
    batch.tasks[reached - 1]?.fail(lost);
    for (const task of batch.tasks.slice(reached).reverse()) {
      if (task.ended) continue;
      if (this.#closed) task.fail(lost);
      else this.#queue.unshift(task);
    }
    this.#ended(batch);
  }

  #ended(batch: Batch): void {
    this.#running.delete(batch);
    this.#places.push(batch.place);
    this.#dispatch();
  }

  /** What was expected is corrected by what it took; a first measurement stands for all that it measured. */
  #learn(tasks: readonly Task[], elapsedMs: number): void {
    const expected = tasks.reduce((sum, { kind }) => sum + kind.costMs, 0);
    const meanMs = elapsedMs / tasks.length;
    for (const kind of new Set(tasks.map((task) => task.kind))) {
      const measured = kind.measured ? (kind.costMs * elapsedMs) / expected : meanMs;
      const next = kind.measured ? kind.costMs + NEWEST * (measured - kind.costMs) : measured;
      kind.costMs = Math.max(LEAST_COST_MS, next);
      kind.mostMs = Math.max(elapsedMs, kind.measured ? FORGET * kind.mostMs : 0);
      kind.measured = true;
    }
    this.#meanMs += NEWEST * (meanMs - this.#meanMs);
  }

  // ---- what waits and what runs too long ----

  #watch(): void {
    this.#look ??= setInterval(() => this.#lookAround(performance.now()), LOOK_MS).unref();
  }

  #lookAround(now: number): void {
    // Long tasks may keep the threads for longer than anything may wait.
    for (let late = this.#loaded; late; ) late = this.#queue.heads().some((head) => this.#overdue(head, now));
    for (const batch of this.#running) this.#endLate(batch, now);
    this.#overload.look(now);
    this.#press({ full: this.#full && this.#queue.size > ROOM_AGAIN * this.#settings.queue });
    if (this.#queue.size > 0 || this.#running.size > 0 || this.#pressed) return;
    clearInterval(this.#look);
    this.#look = undefined;
  }

  #endLate(batch: Batch, now: number): void {
    const threads = this.#threads as Threads;
    const reached = threads.reached(batch.place);
    if (reached !== batch.reached) {
      batch.reached = reached;
      batch.seenAt = now;
    } else {
      // Those in front of a long one need not wait for it.
      this.#settleKept(batch);
    }
    if (reached === 0 || batch.killed || now - batch.seenAt <= this.#maxRunMs) return;
    batch.killed = true;
    threads.kill(batch.place);
  }

  // ---- the module ----

  async #load(): Promise<void> {
    let threads: Threads;
    try {
      checkModule(this.name, this.#module);
      threads = new Threads({ module: this.#module, count: this.#settings.threads });
      this.#threads = threads;
      this.#know(await this.#hello(threads));
    } catch (error) {
      this.#failure = error;
      await this.close();
      throw error;
    }
    for (let place = 0; place < threads.count * HAND_OVERS_PER_THREAD; place++) this.#places.push(place);
    this.#loaded = true;
    this.#loadedAt = performance.now();
    this.#dispatch();
  }

  async #hello(threads: Threads): Promise<readonly string[]> {
    const greeted = threads.hello().catch((error: unknown) => {
      throw deadlyModule(this.name, this.#module, error);
    });
    const hello = await within(LOADING_MS, greeted, () => {
      throw slowModule(this.name, this.#module, LOADING_MS);
    });
    if ("failed" in hello) throw failedModule(this.name, this.#module, hello.failed);
    if (hello.names.length === 0) throw emptyModule(this.name, this.#module);
    return hello.names;
  }

  #know(names: readonly string[]): void {
    for (const [index, name] of names.entries()) this.#kindOf(name).index = index;
    // Tasks that came before this was known.
    for (const kind of this.#kinds.values()) {
      if (kind.index === undefined) this.#failKind(kind);
    }
  }

  #failKind(kind: Kind): void {
    this.#kinds.delete(kind.name);
    for (const head of this.#queue.heads()) {
      for (let task: Task | undefined = head; task; ) {
        const { behind }: Task = task;
        if (task.kind === kind) this.cancel(task, this.#unknown(kind.name));
        task = behind;
      }
    }
  }

  #kindOf(name: string): Kind {
    const known = this.#kinds.get(name);
    if (known) return known;
    const kind: Kind = {
      name,
      index: undefined,
      costMs: FIRST_COST_MS,
      mostMs: Number.POSITIVE_INFINITY,
      measured: false,
    };
    // Once loaded there are no others, so that what a peer sends as a name is not kept.
    if (!this.#loaded) this.#kinds.set(name, kind);
    return kind;
  }
}

function conclude(task: Task, succeeded: boolean, value: unknown): void {
  if (succeeded) task.succeed(value);
  else task.fail(errorOf(value as ThrownError));
}

/** What a task threw, as it was there: its stack is that of the thread. */
function errorOf({ name, message, stack, code }: ThrownError): Error {
  return Object.assign(new Error(message), { name, stack, ...(code === undefined ? {} : { code }) });
}
