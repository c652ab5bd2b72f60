/**
 * One worker as the primary sees it: the child process, its descriptor channel, how far it has come, and how it
 * ended. It makes no decision; crew.ts and primary.ts do. Its end is reported once, after its last message.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { LogLevel } from "../base/settings.ts";
import type { Config, ListenerConfig } from "../config/config.ts";
import type { Answer as AnswerTo, Asked, Question, QuestionKind } from "../control/questions.ts";
import { WORKER_STATES, type WorkerState } from "../control/status.ts";
import {
  type AnswerReport,
  type FromWorker,
  MOVE_TAG,
  readFromWorker,
  SLOTS_TAG,
  SOCKETS_PER_MESSAGE,
  type StartOrder,
  type ToWorker,
  type WorkerFailure,
} from "../control/worker-messages.ts";
import { closeDescriptor, openChannel, receiveDescriptors, sendDescriptors } from "../os/descriptors.ts";
import { bindError } from "./addresses.ts";
import { whenLate } from "./late.ts";
import type { Slots } from "./slots.ts";
import { v8Arguments } from "./v8-arguments.ts";

/** Started by path: nothing of a worker is ever loaded into the primary. */
const WORKER_MAIN = fileURLToPath(new URL("../worker/main.js", import.meta.url));
/** For each step until it accepts. A service may open its database first, but not wait for it forever. */
const STEP_MS = 60_000;
/** Of src/config/environment.ts, which takes longer to load than a worker has to wait. */
const ADMIN_TOKEN_VARIABLE = "HEADRACE_ADMIN_TOKEN";
/** From having stopped to having ended. Exit waits for a write to a log that nobody reads. */
const LEAVE_MS = 2_000;

const DOING: Readonly<Record<WorkerState, string>> = {
  starting: "loading its services",
  loaded: "waiting for its sockets",
  bound: "waiting to accept",
  accepting: "accepting",
  retired: "giving its connections away",
  stopping: "stopping",
  dead: "dead",
};

/** How far a worker's own messages bring it. */
const REACHED: Readonly<Partial<Record<FromWorker["type"], WorkerState>>> = {
  loaded: "loaded",
  bound: "bound",
  accepting: "accepting",
  retired: "retired",
};

type Answer = Exclude<FromWorker["type"], "failed" | "stopped" | "answer">;
type AnswerOf<Type extends Answer> = Extract<FromWorker, { type: Type }>;

interface Waiter {
  readonly type: Answer;
  fits(message: FromWorker): boolean;
  resolve(message: FromWorker): void;
  reject(error: Error): void;
}

export interface Descriptors {
  readonly scoreboard: number;
  readonly admission: number;
  readonly topics: number;
  readonly wake: number;
  readonly tickets: number;
  readonly closes: number;
}

const ended = (message: string): WorkerFailure => ({ type: "failed", code: "worker-failed", message, fields: {} });

/** What services run with: the admin server's token is none of their business. */
function environmentOfWorkers(): NodeJS.ProcessEnv {
  const { [ADMIN_TOKEN_VARIABLE]: _, ...env } = process.env;
  return env;
}

function withoutSecrets(config: Config): Config {
  const { admin: _, ...rest } = config;
  return rest;
}

const rankOf = (state: WorkerState): number => WORKER_STATES.indexOf(state);

export class WorkerProcess {
  readonly slot: number;
  readonly seat: number;
  /** In the order in which it got them at its start, whatever has changed since. */
  readonly listeners: readonly ListenerConfig[];
  /** At which it was told to start. */
  readonly logLevel: LogLevel;
  /** What it runs by now, and what its replacement gets. */
  config: Config;
  readonly startedAt: number = Date.now();
  /** Settles when the process has gone and everything it said was read. */
  readonly exited: Promise<void>;
  /** Set once it accepts; performance.now(). */
  acceptingSince: number | undefined;
  /** Since when it accepts no more. */
  leavingSince: number | undefined;
  /** One of its services has state of the whole worker; known once it is loaded. */
  handsOff = false;
  /** What it said about its own end, if anything. */
  failure: WorkerFailure | undefined;
  /** What it said when it had stopped. */
  stopped: { closed: number; forced: number } | undefined;
  /** Slots whose sockets it has. */
  readonly #given: Set<number> = new Set();
  #state: WorkerState = "starting";
  #ending = "";
  readonly #child: ChildProcess;
  /** -1 once it is dead: the number may be another descriptor's by then. */
  #channel: number;
  #onTime: () => void;
  readonly #waiters: Set<Waiter> = new Set();
  #questions = 0;
  /** Asked and not answered yet, by id. */
  readonly #asked: Map<number, (answer: AnswerReport) => void> = new Map();

  /** Forks and sends the start order. Throws when that fails at once; when it fails a moment later, it has ended. */
  constructor(order: StartOrder<Config>, descriptors: Descriptors) {
    this.slot = order.slot;
    this.seat = order.seat;
    this.config = order.config;
    this.listeners = order.config.listeners;
    this.logLevel = order.logLevel;
    const [own, theirs] = openChannel();
    this.#channel = own;
    try {
      const { scoreboard, admission, topics, wake, tickets, closes } = descriptors;
      this.#child = fork(WORKER_MAIN, [], {
        execArgv: [...process.execArgv, ...v8Arguments(order.config.v8)],
        env: environmentOfWorkers(),
        stdio: ["ignore", "inherit", "inherit", "ipc", theirs, scoreboard, admission, topics, wake, tickets, closes],
      });
    } catch (error) {
      closeDescriptor(own);
      throw error;
    } finally {
      closeDescriptor(theirs);
    }
    this.#child.on("message", (message) => this.#hear(message));
    this.exited = new Promise((resolve) => {
      this.#child.once("close", (code, signal) => resolve(this.#end(code, signal)));
      // Also emitted when a message could not be sent: then the process is about to end anyway.
      this.#child.on("error", (error) => {
        if (this.#child.pid === undefined) resolve(this.#end(null, null, error));
      });
    });
    this.#onTime = this.#hurry();
    this.send(order);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get state(): WorkerState {
    return this.#state;
  }

  /** One phrase, once it is dead: "exited with code 3". */
  get ending(): string {
    return this.#ending;
  }

  /** The next answer of this type that fits; rejects with why when the worker stops or ends before. */
  answered<Type extends Answer>(
    type: Type,
    fits: (message: AnswerOf<Type>) => boolean = () => true,
  ): Promise<AnswerOf<Type>> {
    return new Promise((resolve, reject) => {
      if (rankOf(this.#state) >= rankOf("stopping")) reject(this.error());
      else this.#waiters.add({ type, fits, resolve, reject } as Waiter);
    });
  }

  /** Resolves when it has loaded its services. */
  async loaded(): Promise<void> {
    if (this.#state === "starting" || rankOf(this.#state) >= rankOf("stopping")) await this.answered("loaded");
  }

  send(message: ToWorker<Config>): void {
    if (message.type === "stop" || message.type === "abort") this.#advance("stopping");
    const told = "config" in message ? { ...message, config: withoutSecrets(message.config) } : message;
    // Without a callback a failure would be thrown: the worker's end tells all there is to know.
    if (this.#child.connected) this.#child.send(told, () => {});
  }

  /**
   * Asks it about itself, at any time between `loaded` and its end. Rejects with why there is no answer, at the latest
   * after `withinMs`.
   */
  ask<Kind extends QuestionKind>(kind: Kind, asked: Asked<Kind>, withinMs: number): Promise<AnswerTo<Kind>> {
    const id = ++this.#questions;
    return new Promise((resolve, reject) => {
      const settle = ({ value, problem }: AnswerReport): void => {
        onTime();
        this.#asked.delete(id);
        if (problem === undefined) resolve(value as AnswerTo<Kind>);
        else reject(new HeadraceError("no-answer", `worker ${this.slot}: ${problem}`));
      };
      const refuse = (problem: string): void => settle({ type: "answer", id, problem });
      const onTime = whenLate(withinMs, () => refuse(`no answer within ${withinMs} ms`));
      this.#asked.set(id, settle);
      if (this.#state === "starting" || this.#state === "dead") refuse(`is ${DOING[this.#state]}`);
      else this.send({ type: "ask", id, question: { kind, asked } as Question });
    });
  }

  /** The sockets of its slot that it bound, ours from now on. Call after `bound`. */
  receiveSockets(): number[] {
    this.#given.add(this.slot);
    return receiveDescriptors(this.#openChannel(), SLOTS_TAG, this.listeners.length);
  }

  /** It has sockets, and must get those of every slot that comes. */
  get equipped(): boolean {
    return this.#given.size > 0 && rankOf(this.#state) <= rankOf("accepting");
  }

  /** Gives it copies of the sockets of those of `slots` that it has none of. Throws when the kernel refuses. */
  giveSockets(all: readonly number[], held: Slots): void {
    const slots = all.filter((slot) => !this.#given.has(slot));
    for (const slot of slots) this.#given.add(slot);
    // A listener that was removed since it started has no sockets any more.
    const places = [...this.listeners.keys()].filter((place) => held.has(0, this.listeners[place] as ListenerConfig));
    const sockets = held.of(
      slots,
      places.map((place) => this.listeners[place] as ListenerConfig),
    );
    for (let from = 0; from < sockets.length; from += SOCKETS_PER_MESSAGE) {
      sendDescriptors(this.#openChannel(), SLOTS_TAG, sockets.slice(from, from + SOCKETS_PER_MESSAGE));
    }
    this.send({ type: "take", slots, listeners: places });
  }

  /** Has it give connections to, or take them from, whoever has the other end of `channel`. */
  move(order: Extract<ToWorker<Config>, { type: "moveOut" | "moveIn" }>, channel: number): void {
    sendDescriptors(this.#openChannel(), MOVE_TAG, [channel]);
    this.send(order);
  }

  /** It has, or is being sent, the sockets of a slot. */
  holds(slot: number): boolean {
    return this.#given.has(slot) && rankOf(this.#state) < rankOf("retired");
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** Why it ended. Who is in the way of a bind is found out here: the worker knows only the errno. */
  error(): HeadraceError {
    const { code, message, fields, listener, stack } = this.failure ?? ended(this.#ending || "is stopping");
    const unbound = listener === undefined ? undefined : this.listeners[listener];
    if (unbound) return bindError(fields.errno ?? "", unbound);
    const text = code === "worker-failed" ? `worker ${this.slot} ${message}` : message;
    if (stack === undefined) return new HeadraceError(code, text, fields);
    const cause = new Error(message);
    cause.stack = stack;
    return new HeadraceError(code, text, fields, { cause });
  }

  /** Each step has its own deadline: one that waits for a slower worker outlasts it, and is not blamed. */
  #hurry(): () => void {
    return whenLate(STEP_MS, () => {
      this.failure ??= ended(`made no progress for ${STEP_MS / 1000} s while ${DOING[this.#state]}`);
      this.kill();
    });
  }

  #openChannel(): number {
    if (this.#channel < 0) throw this.error();
    return this.#channel;
  }

  #hear(value: unknown): void {
    const message = readFromWorker(value);
    if (!message) return;
    if (message.type === "answer") {
      this.#asked.get(message.id)?.(message);
      return;
    }
    if (message.type === "failed") this.failure ??= message;
    if (message.type === "loaded") this.handsOff = message.handsOff;
    if (message.type === "dropped") this.#given.delete(message.slot);
    if (message.type === "stopped") {
      this.stopped = message;
      this.#onTime();
      this.#onTime = whenLate(LEAVE_MS, () => this.kill());
    }
    const state = REACHED[message.type];
    if (state && rankOf(state) > rankOf(this.#state)) {
      this.#onTime();
      if (state === "accepting") this.acceptingSince = performance.now();
      else if (rankOf(state) < rankOf("accepting")) this.#onTime = this.#hurry();
      this.#advance(state);
    }
    this.#settle(message);
  }

  #advance(state: WorkerState): void {
    if (rankOf(state) <= rankOf(this.#state)) return;
    this.#state = state;
    if (rankOf(state) >= rankOf("retired")) this.leavingSince ??= Date.now();
    if (rankOf(state) >= rankOf("stopping")) this.#giveUp();
  }

  #settle(message: FromWorker): void {
    for (const waiter of this.#waiters) {
      if (waiter.type !== message.type || !waiter.fits(message)) continue;
      this.#waiters.delete(waiter);
      waiter.resolve(message);
    }
  }

  #giveUp(): void {
    for (const waiter of this.#waiters) waiter.reject(this.error());
    this.#waiters.clear();
  }

  #end(code: number | null, signal: NodeJS.Signals | null, error?: Error): void {
    if (this.#state === "dead") return;
    this.#onTime();
    closeDescriptor(this.#channel);
    this.#channel = -1;
    const how = signal ? `was killed by ${signal}` : `exited with code ${code}`;
    this.#ending = error ? `could not be started: ${messageOf(error)}` : how;
    if (rankOf(this.#state) < rankOf("accepting")) this.#ending += ` while ${DOING[this.#state]}`;
    this.#advance("dead");
    this.#giveUp();
    for (const [id, settle] of this.#asked) settle({ type: "answer", id, problem: this.#ending });
  }
}
