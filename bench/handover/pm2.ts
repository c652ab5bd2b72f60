/**
 * pm2 with as many processes of a node:net echo in cluster mode, reloaded by `pm2 reload`: as shipped. It is installed
 * into build/ when it is first asked for, and its daemon lives in a folder of this run.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { onCores } from "../machine.ts";
import { ROOT, SOURCES } from "../peers.ts";
import { Absent, eventually, freePort, Place, type Subject, type SubjectOptions } from "./subject.ts";

const PM2 = "pm2@7.0.4";
const run = promisify(execFile);

async function install(): Promise<string> {
  const folder = join(ROOT, "build", "bench", "pm2");
  const main = join(folder, "node_modules", "pm2", "bin", "pm2");
  if (existsSync(main)) return main;
  mkdirSync(folder, { recursive: true });
  try {
    const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    await run("npm", ["install", "--prefix", folder, ...quiet, PM2]);
  } catch (error) {
    throw new Absent(`${PM2} could not be installed: ${error instanceof Error ? error.message : error}`);
  }
  return main;
}

/** Whether somebody accepts there. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

export async function startPm2({ machine, workers }: SubjectOptions): Promise<Subject> {
  const main = await install();
  const port = await freePort();
  const place = new Place({ ECHO_PORT: String(port) });
  place.env.PM2_HOME = place.folder;
  const pm2 = async (...args: string[]): Promise<void> => {
    // The daemon inherits the core from the command that starts it.
    const [program = "", ...rest] = onCores(machine, "server", [process.execPath, main, ...args]);
    await run(program, rest, { env: place.env, cwd: place.folder });
  };
  const end = async (): Promise<void> => {
    await pm2("kill").catch(() => {});
    place.clear();
  };
  try {
    await pm2("start", join(SOURCES, "pm2-echo.mjs"), "--name", "echo", "-i", String(workers));
    await eventually("pm2's processes accept", () => answers(port));
  } catch (error) {
    await end();
    throw error;
  }
  return {
    name: "pm2 (cluster)",
    port,
    changes: [{ name: "reload", run: () => pm2("reload", "echo") }],
    processes: () => place.processes,
    end,
  };
}
