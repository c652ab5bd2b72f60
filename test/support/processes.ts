/** Processes as /proc shows them. A test marks those it starts in their environment, which children inherit. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { until } from "./until.js";

/** Name of the variable that carries the mark. */
export const MARK = "TEST_SERVER_MARK";

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

/** Living processes (no zombies) with this mark. */
export function markedProcesses(mark: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && read(`/proc/${name}/environ`).split("\0").includes(`${MARK}=${mark}`))
    .map(Number);
}

/** Its command line; empty when it has gone. */
export function commandOf(pid: number): string {
  return read(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim();
}

/** What each descriptor of a process is: "socket:[123]", "pipe:[5]", "/dev/null". */
export function descriptorsOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      // Closed between the two calls.
      return [];
    }
  });
}

/** Inodes of the sockets that listen on `port`, by the kernel's own table. */
export function listeningInodes(port: number): string[] {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((path) =>
    read(path)
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .filter(([, local = "", , state]) => local.endsWith(`:${hex}`) && state === "0A")
      .map((columns) => columns[9] ?? ""),
  );
}

/**
 * Waits until nothing listens on `port`. A process that is being torn down can be out of sight before the kernel has
 * closed its sockets: its memory, by which it is found, goes before its descriptors while another thread still ends.
 */
export async function nothingListens(port: number): Promise<void> {
  await until(`nothing listens on ${port}`, () => listeningInodes(port).length === 0);
}
