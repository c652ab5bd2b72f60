/**
 * One worker as the primary sees it: the child process, its descriptor channel, how far it has come, and how it
 * ended. It makes no decision; primary.ts does. Its end is reported once, after its last message.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { Config } from "../config/config.ts";
import { WORKER_STATES, type WorkerState } from "../control/status.ts";
import {
  type FromWorker,
  readFromWorker,
  SLOTS_TAG,
  type ToWorker,
  type WorkerFailure,
} from "../control/worker-messages.ts";
import { closeDescriptor, openChannel, receiveDescriptors, sendDescriptors } from "../os/descriptors.ts";
import { bindError } from "./addresses.ts";

/** Started by path: nothing of a worker is ever loaded into the primary. */
const WORKER_MAIN = fileURLToPath(new URL("../worker/main.js", import.meta.url));
/** For each step until it accepts. A service may open its database first, but not wait for it forever. */
const STEP_MS = 60_000;
/** From having stopped to having ended. Exit waits for a write to a log that nobody reads. */
const LEAVE_MS = 2_000;

const DOING: Readonly<Record<WorkerState, string>> = {
  starting: "loading its services",
  loaded: "waiting for its sockets",
  bound: "waiting to accept",
  accepting: "accepting",
  stopping: "stopping",
  dead: "dead",
};

/** How far a worker's own messages bring it. */
const REACHED: Readonly<Partial<Record<FromWorker["type"], WorkerState>>> = {
  loaded: "loaded",
  bound: "bound",
  accepting: "accepting",
};

interface Waiter {
  readonly rank: number;
  resolve(): void;
  reject(error: Error): void;
}

const ended = (message: string): WorkerFailure => ({ type: "failed", code: "worker-failed", message, fields: {} });

const rankOf = (state: WorkerState): number => WORKER_STATES.indexOf(state);

export class WorkerProcess {
  readonly index: number;
  readonly startedAt: number = Date.now();
  /** Settles when the process has gone and everything it said was read. */
  readonly exited: Promise<void>;
  /** Set once it accepts. */
  acceptingSince: number | undefined;
  /** What it said about its own end, if anything. */
  failure: WorkerFailure | undefined;
  /** What it said when it had stopped. */
  stopped: { closed: number; forced: number } | undefined;
  #state: WorkerState = "starting";
  #ending = "";
  readonly #config: Config;
  readonly #child: ChildProcess;
  readonly #channel: number;
  #late: NodeJS.Timeout;
  readonly #waiters: Set<Waiter> = new Set();

  /** Forks. Throws when that fails at once; when it fails a moment later, the worker has ended. */
  constructor(index: number, config: Config, scoreboardFd: number) {
    this.index = index;
    this.#config = config;
    const [own, theirs] = openChannel();
    this.#channel = own;
    try {
      this.#child = fork(WORKER_MAIN, [], { stdio: ["ignore", "inherit", "inherit", "ipc", theirs, scoreboardFd] });
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
    this.#late = this.#hurry();
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

  /** Resolves when the worker has come as far as `state`; rejects with why when it stops or ends before. */
  reached(state: "loaded" | "bound" | "accepting"): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.add({ rank: rankOf(state), resolve, reject });
      this.#settle();
    });
  }

  send(message: ToWorker<Config>): void {
    if (message.type === "stop" || message.type === "abort") this.#advance("stopping");
    // Without a callback a failure would be thrown: the worker's end tells all there is to know.
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  /** The sockets it bound, ours from now on. Call after `bound`. */
  receiveSlots(count: number): number[] {
    return receiveDescriptors(this.#channel, SLOTS_TAG, count);
  }

  /** Gives it copies of its slot's sockets. */
  giveSlots(fds: readonly number[]): void {
    sendDescriptors(this.#channel, SLOTS_TAG, fds);
    this.send({ type: "take" });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** Why it ended. Who is in the way of a bind is found out here: the worker knows only the errno. */
  error(): HeadraceError {
    const { code, message, fields, listener, stack } = this.failure ?? ended(this.#ending);
    const unbound = listener === undefined ? undefined : this.#config.listeners[listener];
    if (unbound) return bindError(fields.errno ?? "", unbound);
    const text = code === "worker-failed" ? `worker ${this.index} ${message}` : message;
    if (stack === undefined) return new HeadraceError(code, text, fields);
    const cause = new Error(message);
    cause.stack = stack;
    return new HeadraceError(code, text, fields, { cause });
  }

  /** Each step has its own deadline: one that waits for a slower worker outlasts it, and is not blamed. */
  #hurry(): NodeJS.Timeout {
    return setTimeout(() => {
      this.failure ??= ended(`made no progress for ${STEP_MS / 1000} s while ${DOING[this.#state]}`);
      this.kill();
    }, STEP_MS);
  }

  #hear(value: unknown): void {
    const message = readFromWorker(value);
    if (!message) return;
    if (message.type === "failed") this.failure ??= message;
    if (message.type === "stopped") {
      this.stopped = message;
      this.#late = setTimeout(() => this.kill(), LEAVE_MS);
    }
    const state = REACHED[message.type];
    if (!state) return;
    clearTimeout(this.#late);
    if (state === "accepting") this.acceptingSince = Date.now();
    else this.#late = this.#hurry();
    this.#advance(state);
  }

  #advance(state: WorkerState): void {
    if (rankOf(state) <= rankOf(this.#state)) return;
    this.#state = state;
    this.#settle();
  }

  #settle(): void {
    const over = rankOf(this.#state) >= rankOf("stopping");
    for (const waiter of this.#waiters) {
      if (!over && waiter.rank > rankOf(this.#state)) continue;
      this.#waiters.delete(waiter);
      if (over) waiter.reject(this.error());
      else waiter.resolve();
    }
  }

  #end(code: number | null, signal: NodeJS.Signals | null, error?: Error): void {
    if (this.#state === "dead") return;
    clearTimeout(this.#late);
    closeDescriptor(this.#channel);
    const how = signal ? `was killed by ${signal}` : `exited with code ${code}`;
    this.#ending = error ? `could not be started: ${messageOf(error)}` : how;
    if (this.#state !== "accepting" && this.#state !== "stopping") this.#ending += ` while ${DOING[this.#state]}`;
    this.#advance("dead");
  }
}
