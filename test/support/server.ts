/**
 * A server for one test: started as a process, watched through its JSON log, with a runtime directory of its own.
 * When the test ends, everything it started is killed by pid, and a process that outlived its server fails the test.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { EventEmitter, on } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { requestControl } from "#src/control/client.js";
import type { ServerStatus } from "#src/control/status.js";
import { peerOf } from "#src/os/descriptors.js";
import { type CommandOptions, headrace, type Outcome, spawnCommand } from "./command.js";
import { makeFolder } from "./folder.js";
import { commandOf, MARK, markedProcesses } from "./processes.js";
import { until, within } from "./until.js";

/** One line of the log. */
export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ServerOptions extends CommandOptions {
  /** Do not read its log. */
  readonly silent?: boolean;
}

/** A change may have to wait for a release that never gets ready. */
const COMMAND_MS = 90_000;

/** A process that has just ended needs no signal any more. */
function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ESRCH");
  }
}

export class TestServer {
  readonly folder: string;
  readonly control: string;
  readonly pid: number;
  readonly exited: Promise<Exit>;
  /** Everything on stderr, once it has ended. */
  readonly stderr: Promise<string>;
  /** The log so far. */
  readonly lines: LogLine[] = [];
  readonly #mark: string = randomUUID();
  readonly #env: NodeJS.ProcessEnv;
  readonly #stdout: Readable;
  readonly #news = new EventEmitter();

  constructor(folder: string, args: readonly string[], options: ServerOptions) {
    const { env, cwd = folder, silent = false } = options;
    this.folder = folder;
    this.control = join(folder, "control.sock");
    this.#env = { RUNTIME_DIRECTORY: folder, ...env };
    const child = spawnCommand(["run", ...args], { ...options, cwd, env: { ...this.#env, [MARK]: this.#mark } });
    assert.ok(child.pid);
    this.pid = child.pid;
    this.exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal })));
    this.stderr = text(child.stderr);
    this.#stdout = child.stdout;
    if (!silent) this.readLog();
  }

  /** Begins to read the log of a `silent` server. */
  readLog(): void {
    createInterface(this.#stdout).on("line", (line) => {
      this.lines.push(JSON.parse(line));
      this.#news.emit("line");
    });
  }

  /** Living processes: the primary and its workers, or what is left of them. */
  get processes(): number[] {
    return markedProcesses(this.#mark);
  }

  /** The first line, past or future, that fits. */
  logged(what: string, fits: (line: LogLine) => boolean): Promise<LogLine> {
    const search = async (): Promise<LogLine> => {
      const early = this.lines.find(fits);
      if (early) return early;
      for await (const _ of on(this.#news, "line")) {
        const found = this.lines.find(fits);
        if (found) return found;
      }
      throw new Error("unreachable");
    };
    const died = this.exited.then(async ({ code, signal }): Promise<LogLine> => {
      const found = this.lines.find(fits);
      if (found) return found;
      // After an upgrade another primary goes on.
      if (this.processes.some(isPrimary)) return search();
      throw new Error(`the server ended (${signal ?? code}) before: ${what}\n${await this.stderr}`);
    });
    return within(what, Promise.race([search(), died]));
  }

  /** Resolves with the listeners' ports when the server is ready. */
  async ready(): Promise<number[]> {
    const { listeners } = await this.logged("ready", ({ msg }) => msg === "ready");
    return (listeners as { address: string }[]).map(({ address }) => Number(address.split(":").at(-1)));
  }

  /** To the primary that this test started; an upgrade puts another in its place (`status().pid`). */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  async exit(): Promise<Exit> {
    return within("the server ends", this.exited);
  }

  /** Over the control socket. */
  async status(): Promise<ServerStatus> {
    const uid = process.geteuid?.() ?? 0;
    const reply = await requestControl({ type: "status" }, { path: this.control, peerOf, uid });
    assert.equal(reply.type, "status");
    return reply.type === "status" ? reply.status : assert.fail();
  }

  /** A command that finds this server. */
  command(...args: string[]): Promise<Outcome> {
    return headrace(args, { env: this.#env, cwd: this.folder, patienceMs: COMMAND_MS });
  }

  /** Fails when a process is left of a server that has ended. */
  async gone(): Promise<void> {
    await until("every process of the server has gone", () => this.processes.length === 0);
  }
}

/** By its title, which it gives itself early on. */
const isPrimary = (pid: number): boolean => /^headrace primary|\/cli\/main\.js/.test(commandOf(pid));

/** Starts `headrace run` with `args` in a folder of its own. */
export function startServer(t: TestContext, args: readonly string[], options: ServerOptions = {}): TestServer {
  const server = new TestServer(makeFolder(t), args, options);
  t.after(async () => {
    const left = server.processes;
    const primaries = left.filter(isPrimary);
    for (const pid of left) kill(pid);
    await server.exited;
    await server.gone();
    assert.ok(left.length === 0 || primaries.length > 0, `workers ${left} outlived their server`);
  });
  return server;
}
