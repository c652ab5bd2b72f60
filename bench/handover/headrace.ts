/** headrace with a configuration file, reloaded and upgraded by its own commands. */
import { execFile } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import type { ServerStatus } from "#src/control/status.js";
import { onCores } from "../machine.ts";
import { HEADRACE_MAIN, ROOT } from "../peers.ts";
import { startChild } from "../process/child.ts";
import { Absent, eventually, Place, type Subject, type SubjectOptions } from "./subject.ts";

/** Above what is held, and above what the churn adds. */
const CONNECTIONS = 20_000;

/** For services of the bench, which import the library by this variable. */
const BENCH_LIBRARY = pathToFileURL(join(ROOT, "dist", "index.js")).href;

const run = promisify(execFile);

/** One line of its log. */
interface LogLine {
  readonly time: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface Headrace extends Subject {
  readonly log: readonly LogLine[];
  /** Its runtime directory. */
  readonly folder: string;
  status(): Promise<ServerStatus>;
  /** Runs a command; throws when its exit code is not 0. */
  command(...args: string[]): Promise<void>;
}

export interface HeadraceOptions extends SubjectOptions {
  /** A built-in, or the path of a module. */
  readonly service?: string;
  /** A new worker receives a share of the connections. Default: true. */
  readonly rebalance?: boolean;
  /** More options, in the place of those here. */
  readonly config?: object;
}

export async function startHeadrace(options: HeadraceOptions): Promise<Headrace> {
  const { machine, workers, quick, service, rebalance = true, config: more = {} } = options;
  if (!existsSync(HEADRACE_MAIN)) throw new Absent("dist/cli/main.js is missing: npm run build");
  const place = new Place(service === undefined ? {} : { BENCH_LIBRARY });
  const { folder } = place;
  place.env.RUNTIME_DIRECTORY = folder;
  const file = join(folder, "headrace.yaml");
  const config = {
    workers,
    listeners: [{ name: "main", address: "127.0.0.1:0", service: service ?? "echo-line" }],
    limits: { connections: CONNECTIONS },
    migration: { rebalance },
    ...(quick ? { timeouts: { prove: "200ms" } } : {}),
    ...more,
  };
  writeFileSync(file, JSON.stringify(config));
  const log: LogLine[] = [];
  const argv = onCores(machine, "server", [process.execPath, HEADRACE_MAIN, "run", "--config", file]);
  const child = await startChild({ argv, env: place.env, cwd: folder }, (line) => log.push(JSON.parse(line)));
  const command = async (...args: string[]): Promise<void> => {
    await run(process.execPath, [HEADRACE_MAIN, ...args], { env: place.env, cwd: folder });
  };
  // Complete when nothing is left of what was replaced: its connections have moved.
  const change = async (...args: string[]): Promise<void> => {
    await command(...args);
    await eventually("the replaced have gone", () => place.processes.length === 1 + workers);
  };
  const end = async (): Promise<void> => {
    await command("stop", "--fast", "--wait").catch(() => {});
    await child.end();
    place.clear();
  };
  try {
    const ended = child.ended.then((how) => {
      throw new Error(`headrace ended before it was ready: ${how}. ${child.complaint()}`);
    });
    ended.catch(() => {});
    const ready = eventually("headrace is ready", () => log.find(({ msg }) => msg === "ready"));
    const { listeners } = await Promise.race([ready, ended]);
    const [{ address = "" } = {}] = listeners as { address?: string }[];
    return {
      name: "headrace",
      port: Number(address.split(":").at(-1)),
      log,
      folder,
      command,
      changes: [
        { name: "reload", run: () => change("reload", "--replace", "--wait") },
        { name: "upgrade", run: () => change("upgrade", "--wait") },
      ],
      async status() {
        const { stdout } = await run(process.execPath, [HEADRACE_MAIN, "status", "--json"], { env: place.env });
        return JSON.parse(stdout);
      },
      processes: () => place.processes,
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}
