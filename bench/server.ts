/**
 * One peer, running: started on its core, known by its address and its processes, ended with all of them. It starts in
 * an empty folder with a runtime directory of its own, so neither a configuration file nor another headrace is near.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Machine, onCores } from "./machine.ts";
import { COLLECT_MODULE, type Duty, type Peer } from "./peers.ts";
import { type Child, startChild } from "./process/child.ts";
import { processTree } from "./process/tree.ts";

export interface Server {
  /** 127.0.0.1:41234 */
  address: string;
  /** Of the tree as it was when the server was ready: the primary first, then its workers. */
  pids: readonly number[];
  /** What is wrong with it now: processes that came or went. Undefined while all is well. */
  fault(): string | undefined;
  /** Returns what went wrong with the end itself, if anything. A second call changes nothing. */
  end(): Promise<string | undefined>;
}

const READY_TIMEOUT_MS = 15_000;
const folders = new Set<string>();

process.on("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Variables that would make a server other than as shipped, or tie it to a service manager. */
const FOREIGN = /^(HEADRACE_|NODE_OPTIONS$|LISTEN_|NOTIFY_SOCKET$|RUNTIME_DIRECTORY$|GOMAXPROCS$|GOGC$)/;

function environment(peer: Peer, folder: string, collectable: boolean): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !FOREIGN.test(name));
  const collect = collectable && peer.runsNode ? { NODE_OPTIONS: `--import=${pathToFileURL(COLLECT_MODULE)}` } : {};
  return { ...Object.fromEntries(inherited), XDG_RUNTIME_DIR: folder, ...peer.env, ...collect };
}

/** The address in a ready line, or undefined when the line is another. */
function readyAddress(line: string): string | undefined {
  if (!line.includes('"ready"')) return undefined;
  try {
    const message = JSON.parse(line) as { msg?: unknown; listeners?: { address?: string }[] };
    return message.msg === "ready" ? message.listeners?.[0]?.address : undefined;
  } catch {
    return undefined;
  }
}

/** The first of: the address, the end of the process, the end of our patience. */
function readiness(child: Child, address: Promise<string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("not ready in time")), READY_TIMEOUT_MS);
    void child.ended.then((how) => reject(new Error(`ended before it was ready: ${how}. ${child.complaint()}`)));
    void address.then(resolve).finally(() => clearTimeout(timer));
  });
}

/** Throws, with nothing left running, when the server does not get ready. */
export async function startServer(
  peer: Peer,
  duty: Duty,
  machine: Machine,
  { collectable = false }: { collectable?: boolean } = {},
): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), "headrace-bench-"));
  folders.add(folder);
  let listening: (address: string) => void = () => {};
  const address = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const argv = onCores(machine, "server", peer.argv(duty));
  const child = await startChild({ argv, env: environment(peer, folder, collectable), cwd: folder }, (line) => {
    const found = readyAddress(line);
    if (found !== undefined) listening(found);
  });
  const end = async (): Promise<string | undefined> => {
    const killed = await child.end();
    rmSync(folder, { recursive: true, force: true });
    folders.delete(folder);
    return killed === 0 ? undefined : `${killed} of its processes outlived it and had to be killed`;
  };
  try {
    const ready = await readiness(child, address);
    const members = processTree(child.pid).map((entry) => entry.pid);
    const fault = (): string | undefined => {
      const now = processTree(child.pid).map((entry) => entry.pid);
      if (now.length === members.length && now.every((pid) => members.includes(pid))) return undefined;
      return `its processes changed: ${members.join(" ")} → ${now.join(" ")}. ${child.complaint()}`;
    };
    return { address: ready, pids: members, fault, end };
  } catch (error) {
    await end();
    throw error;
  }
}
