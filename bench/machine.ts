/**
 * What the figures were measured on, and which core each side gets: the server the first core that this process may
 * use, the load generator (and the harness) all others. Nothing here changes the machine.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem, type } from "node:os";

export interface Machine {
  facts: readonly [name: string, value: string][];
  /** Core numbers. Absent: both sides share every core. */
  pinning?: { server: number; clients: readonly number[] };
  clientCores: number;
  /** Descriptors that one process may open. */
  descriptors: number;
  /** Put before a command: ends it when the harness dies. Empty where setpriv cannot. */
  leash: readonly string[];
}

/** First line of what a program prints, or undefined when it is not there or fails. */
export function firstLine(program: string, ...args: string[]): string | undefined {
  try {
    return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).split("\n", 1)[0];
  } catch {
    return undefined;
  }
}

function readFirstLine(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "latin1").split("\n", 1)[0] : undefined;
}

/** "0,2-4" → 0, 2, 3, 4 */
function parseCoreList(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [first = 0, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, offset) => first + offset);
  });
}

function allowedCores(): number[] {
  const list = /^Cpus_allowed_list:\s+(\S+)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "0";
  return parseCoreList(list);
}

function describePinning(machine: Pick<Machine, "pinning">, cores: number): string {
  if (machine.pinning !== undefined) {
    return `server on core ${machine.pinning.server}, clients on ${machine.pinning.clients.join(",")}`;
  }
  return cores === 1
    ? "NONE: one core only, server and clients share it; the figures say little"
    : "NONE: taskset (util-linux) is missing; server and clients share the cores";
}

export function readMachine(): Machine {
  const cores = allowedCores();
  const [server, ...clients] = cores;
  const canPin = server !== undefined && clients.length > 0 && firstLine("taskset", "--version") !== undefined;
  const pinning = canPin ? { server, clients } : undefined;
  const open = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1];
  const leash = ["setpriv", "--pdeathsig", "KILL", "--"];
  const held = firstLine("setpriv", "--pdeathsig", "KILL", "--", "echo", "held") === "held";
  const governor = readFirstLine(`/sys/devices/system/cpu/cpu${server ?? 0}/cpufreq/scaling_governor`);
  const descriptors = Number(open ?? 1024);
  return {
    facts: [
      ["processor", `${cpus()[0]?.model ?? "unknown"}, ${cores.length} cores usable, governor ${governor ?? "hidden"}`],
      ["memory", `${Math.round(totalmem() / 2 ** 30)} GiB`],
      ["kernel", `${type()} ${release()}`],
      ["node", process.version],
      ["cc", firstLine("cc", "--version") ?? "missing"],
      ["go", firstLine("go", "version") ?? "missing"],
      ["pinning", describePinning(pinning === undefined ? {} : { pinning }, cores.length)],
      ["descriptors", `${descriptors} per process`],
      ["somaxconn", readFirstLine("/proc/sys/net/core/somaxconn") ?? "hidden"],
      ["ports", readFirstLine("/proc/sys/net/ipv4/ip_local_port_range")?.replace(/\s+/, "–") ?? "hidden"],
      [
        "load before",
        loadavg()
          .map((load) => load.toFixed(2))
          .join(" "),
      ],
    ],
    ...(pinning === undefined ? {} : { pinning }),
    clientCores: pinning?.clients.length ?? cores.length,
    descriptors,
    leash: held ? leash : [],
  };
}

/** Moves the harness off the server's core. */
export function pinSelf(machine: Machine): void {
  if (machine.pinning === undefined) return;
  execFileSync("taskset", ["-a", "-c", "-p", machine.pinning.clients.join(","), String(process.pid)], {
    stdio: "ignore",
  });
}

/** `argv` on the side's cores, tied to the harness's life. */
export function onCores(machine: Machine, side: "server" | "client", argv: readonly string[]): string[] {
  const { pinning } = machine;
  if (pinning === undefined) return [...machine.leash, ...argv];
  const list = side === "server" ? String(pinning.server) : pinning.clients.join(",");
  return [...machine.leash, "taskset", "-c", list, ...argv];
}
