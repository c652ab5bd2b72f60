/** One load process as run.ts sees it: the child, and the two things it will say. It makes no decision. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { HeadraceError } from "../base/errors.ts";
import type { LoadShare } from "./options.ts";
import type { FromLoad, LoadReport, ToLoad } from "./report.ts";

/** Started by path: the engine is never loaded into the process that reports. */
const LOAD_MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
/** From `leave` to its exit, ms. */
const LEAVE_MS = 3_000;

export class LoadProcess {
  /** Resolves with the connections that are open, once every connect is decided. Rejects when the process fails. */
  readonly connected: Promise<number>;
  /** Rejects when the process fails, or does not report in time. */
  readonly report: Promise<LoadReport>;
  /** Connects decided so far. */
  decided = 0;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #late: NodeJS.Timeout | undefined;
  #give: (report: LoadReport) => void = () => {};
  #fail: (error: Error) => void = () => {};
  #connect: (opened: number) => void = () => {};

  constructor() {
    this.#child = fork(LOAD_MAIN, [], { stdio: ["ignore", 2, 2, "ipc"] });
    this.#exited = once(this.#child, "exit");
    this.report = new Promise((resolve, reject) => {
      this.#give = resolve;
      this.#fail = reject;
    });
    this.connected = new Promise((resolve, reject) => {
      this.#connect = resolve;
      this.report.catch(reject);
    });
    // Whoever waits hears of a failure; that nobody waits yet is no crash.
    this.connected.catch(() => {});
    this.#child.on("message", (message: FromLoad) => this.#hear(message));
    this.#child.on("error", (error) => this.#fail(error));
    this.#child.on("exit", (code, signal) => {
      this.#fail(new HeadraceError("worker-failed", `load process ${this.#child.pid} ended early (${signal ?? code})`));
    });
  }

  begin(share: LoadShare): void {
    this.tell({ type: "begin", share });
  }

  /** A process that has gone hears nothing: its `report` rejects. */
  tell(message: ToLoad): void {
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  /** The report must come within `ms` from now. */
  expectReport(ms: number): void {
    const late = (): void =>
      this.#fail(new HeadraceError("worker-failed", `load process ${this.#child.pid} does not report: killed`));
    this.#late = setTimeout(late, ms);
    this.#late.unref();
  }

  /** Lets it close its connections. Resolves when it has gone; it is killed when that takes too long. */
  async leave(): Promise<void> {
    this.tell({ type: "leave" });
    const timer = setTimeout(() => this.kill(), LEAVE_MS);
    if (this.#child.exitCode === null && this.#child.signalCode === null) await this.#exited;
    clearTimeout(timer);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #hear(message: FromLoad): void {
    switch (message.type) {
      case "progress":
        this.decided = message.decided;
        break;
      case "connected":
        this.#connect(message.opened);
        break;
      case "report":
        clearTimeout(this.#late);
        this.#give(message.report);
        break;
      case "failed":
        this.#fail(new HeadraceError(message.code, message.message));
        break;
    }
  }
}
