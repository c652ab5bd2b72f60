/**
 * A server with a configuration file and a service of its own, under a verified load: held connections and churn. What
 * every test of handover asks at its end stands here too: that no client saw anything, and that no descriptor leaked.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { ServerStatus } from "#src/control/status.js";
import { LineClient } from "./client.js";
import type { Outcome } from "./command.js";
import { makeFolder } from "./folder.js";
import { descriptorsOf } from "./processes.js";
import { type ServerOptions, startServer, type TestServer } from "./server.js";
import { type SteadyOptions, writeSteadyService } from "./steady-service.js";
import { until } from "./until.js";
import { faultsOf, type LoadReport, VerifiedLoad, type VerifiedLoadOptions } from "./verified-load.js";

/** What a test writes into the configuration file; objects are merged with the defaults below. */
export interface GivenConfig {
  readonly workers?: number;
  readonly listeners?: readonly object[];
  readonly limits?: object;
  readonly timeouts?: object;
  readonly [option: string]: unknown;
}

export interface RigOptions {
  readonly config?: GivenConfig;
  readonly service?: SteadyOptions;
  /** False: no load. */
  readonly load?: Partial<VerifiedLoadOptions> | false;
  readonly server?: ServerOptions;
  /** Called before the server is started; `folder` holds the configuration and the service. */
  readonly prepare?: (folder: string) => unknown;
}

const REPLIES_AFTER = 400;

export const MAIN_LISTENER = { name: "main", address: "127.0.0.1:0", service: "./service.mjs" };

/** What each kind of descriptor a process holds, and how many. */
type Census = Readonly<Record<string, number>>;

export class Rig {
  readonly folder: string;
  readonly server: TestServer;
  port = 0;
  /** Set by `startRig`, unless it was asked for none. */
  load: VerifiedLoad | undefined;
  #census: readonly Census[] = [];

  constructor(folder: string, server: TestServer) {
    this.folder = folder;
    this.server = server;
  }

  get configFile(): string {
    return join(this.folder, "headrace.yaml");
  }

  configure(config: GivenConfig): void {
    writeConfig(this.configFile, config);
  }

  /** Runs a command that must succeed. */
  async command(...args: string[]): Promise<Outcome> {
    const outcome = await this.server.command(...args);
    assert.equal(outcome.code, 0, `${args.join(" ")}: ${outcome.stdout}${outcome.stderr}`);
    return outcome;
  }

  status(): Promise<ServerStatus> {
    return this.server.status();
  }

  /** The reply to one line on a connection of its own. */
  async ask(line: string): Promise<string> {
    const socket = connect(this.port, "127.0.0.1");
    try {
      const client = new LineClient(socket);
      return await client.ask(line);
    } finally {
      socket.end();
    }
  }

  async workerPids(): Promise<number[]> {
    return (await this.status()).workers.map(({ pid }) => pid);
  }

  /** Notes what descriptors every process has, to be compared by `sameCensus`. Not while clients are connected. */
  async takeCensus(): Promise<void> {
    this.#census = await this.#look();
  }

  /** Waits until the processes, however many generations later, hold what they held at `takeCensus`. */
  async sameCensus(): Promise<void> {
    const same = async (): Promise<boolean> => JSON.stringify(await this.#look()) === JSON.stringify(this.#census);
    await until("the descriptors of before", same).catch(async () => {
      assert.deepEqual(await this.#look(), this.#census, "a descriptor leaked");
    });
  }

  /** Primary first, then the workers in order. Old processes on their way out count as leaked until they are gone. */
  async #look(): Promise<Census[]> {
    const { pid, workers } = await this.status();
    const known = [pid, ...workers.map((worker) => worker.pid)];
    const others = this.server.processes.filter((each) => !known.includes(each));
    return [...known, ...others].map(kindsOf);
  }
}

/** What `status` opens to read a process's usage is closed a minute after it ended; a module while it is being loaded. */
const PASSING = /^\/proc\/\d+\/stat$|\.[cm]?js$/;

/** Sockets, pipes and so on by kind. */
function kindsOf(pid: number): Census {
  const kinds: Record<string, number> = {};
  for (const link of descriptorsOf(pid).sort()) {
    if (PASSING.test(link)) continue;
    const kind = link.replace(/:\[\d+\]$/, "");
    kinds[kind] = (kinds[kind] ?? 0) + 1;
  }
  return kinds;
}

function writeConfig(file: string, { timeouts, ...config }: GivenConfig): void {
  const complete = {
    workers: 2,
    listeners: [MAIN_LISTENER],
    // Clients on a busy machine may be slow to speak; what is tested here is not that.
    timeouts: { firstByte: "30s", frame: "30s", drain: "5s", prove: "200ms", ...timeouts },
    ...config,
  };
  // JSON is YAML; one option a line, so that a test can say which line is wrong.
  writeFileSync(file, JSON.stringify(complete, undefined, 1));
}

/** Starts server and load. Both are gone when the test ends. */
export async function startRig(t: TestContext, options: RigOptions = {}): Promise<Rig> {
  const { config = {}, load = {} } = options;
  const folder = makeFolder(t);
  writeSteadyService(folder, options.service);
  writeConfig(join(folder, "headrace.yaml"), config);
  options.prepare?.(folder);
  const server = startServer(t, ["--config", join(folder, "headrace.yaml")], { cwd: folder, ...options.server });
  const rig = new Rig(folder, server);
  [rig.port = 0] = await server.ready();
  await rig.takeCensus();
  if (load !== false) rig.load = await startLoad(t, rig, load);
  return rig;
}

export async function startLoad(
  t: TestContext,
  rig: Rig,
  options: Partial<VerifiedLoadOptions> = {},
): Promise<VerifiedLoad> {
  const load = await VerifiedLoad.start({
    port: rig.port,
    connections: 200,
    intervalMs: 200,
    churnPerSecond: 75,
    tagged: true,
    mostMs: 120_000,
    ...options,
  });
  t.after(() => load.kill());
  return load;
}

/** Ends the load, says that no client saw anything, and that nothing leaked. */
export async function nothingHappened(rig: Rig): Promise<LoadReport> {
  const report = await stopLoad(rig);
  assertClean(report);
  await noTrace(rig);
  return report;
}

/** Lets the load see what the last change left behind, and ends it. */
export async function stopLoad({ load }: Rig): Promise<LoadReport> {
  assert.ok(load);
  return await load.stop(REPLIES_AFTER);
}

/** No client saw anything, and there were clients to see it. */
export function assertClean({ held, churn, faults }: LoadReport): void {
  assert.deepEqual({ held: faultsOf(held), churn: faultsOf(churn), faults }, { held: {}, churn: {}, faults: [] });
  assert.ok(held.verified > 0 && churn.verified > 0, "no traffic");
}

/** RSS that each process may have above what it had: arenas, garbage that is not collected yet. */
const MEMORY_MOST = 96 << 20;

function memoryOf(pid: number): number {
  const [, kibibytes = "0"] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
  return Number(kibibytes) * 1024;
}

/**
 * From now on: no process that is still there at the end ever takes much more memory than now. Call what it returns when
 * every client has gone: nothing is left of them, neither a connection nor a byte nor a descriptor.
 */
export function watchTraces(rig: Rig): () => Promise<void> {
  const before = new Map(rig.server.processes.map((pid) => [pid, memoryOf(pid)]));
  return async () => {
    await noTrace(rig);
    await until("no byte is held", async () => {
      const { bytesHeldIn, bytesHeldOut } = (await rig.status()).totals;
      return bytesHeldIn === 0 && bytesHeldOut === 0;
    });
    for (const pid of rig.server.processes) {
      const grown = memoryOf(pid) - (before.get(pid) ?? memoryOf(pid));
      assert.ok(grown <= MEMORY_MOST, `process ${pid} took ${grown >> 20} MiB more`);
    }
  };
}

/** Every connection is closed, nothing leaked, and no process is left over. */
export async function noTrace(rig: Rig): Promise<void> {
  await until("the server has seen every client off", async () => (await rig.status()).totals.open === 0);
  await rig.sameCensus();
}
