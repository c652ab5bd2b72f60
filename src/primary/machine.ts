/**
 * What this machine allows: limits, sysctls, memory, kernel. Read once, as plain numbers, so that what follows from
 * them (diagnosis.ts) can be tested for machines that are not at hand. What cannot be read is undefined and judged by
 * nobody.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, release, totalmem } from "node:os";
import { openFilesLimit } from "../os/descriptors.ts";

export interface Machine {
  /** `uname -r`. */
  readonly kernel: string;
  /** CPUs that this process may use. */
  readonly cpus: number;
  /** RLIMIT_NOFILE: Node raises the soft limit to the hard one at start. */
  readonly descriptors: number | undefined;
  /** fs.nr_open: no RLIMIT_NOFILE may be above it. */
  readonly descriptorsAllowed: number | undefined;
  /** fs.file-max: open files of the whole machine. */
  readonly files: number | undefined;
  readonly somaxconn: number | undefined;
  /** net.ipv4.tcp_max_syn_backlog. */
  readonly synBacklog: number | undefined;
  /** net.ipv4.ip_local_port_range. */
  readonly localPorts: readonly [number, number] | undefined;
  /** net.ipv4.ip_local_reserved_ports, as written. */
  readonly reservedPorts: string;
  /** net.ipv4.tcp_mem, in bytes: low, pressure, high. */
  readonly tcpMemory: readonly [number, number, number] | undefined;
  /** Smallest receive and send buffer of a connection (tcp_rmem, tcp_wmem), bytes. */
  readonly leastBuffers: readonly [number, number] | undefined;
  /** net.netfilter.nf_conntrack_max; undefined where connections are not tracked. */
  readonly trackedConnections: number | undefined;
  /** Bytes: of the control group if it has a limit, else of the machine. */
  readonly memory: number;
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function numbers(path: string): number[] {
  const words = text(path)?.split(/\s+/) ?? [];
  return words.every((word) => /^\d+$/.test(word)) ? words.map(Number) : [];
}

const one = (path: string): number | undefined => numbers(path)[0];
const sysctl = (name: string): string => `/proc/sys/${name.replaceAll(".", "/")}`;

function pair(values: readonly number[]): [number, number] | undefined {
  const [first, second] = values;
  return first === undefined || second === undefined ? undefined : [first, second];
}

function descriptors(): number | undefined {
  try {
    return openFilesLimit();
  } catch {
    return undefined;
  }
}

function tcpMemory(pageBytes: number): [number, number, number] | undefined {
  const [low, pressure, high] = numbers(sysctl("net.ipv4.tcp_mem")).map((pages) => pages * pageBytes);
  return low === undefined || pressure === undefined || high === undefined ? undefined : [low, pressure, high];
}

/** memory.max of the process's own group (cgroup v2), or the machine's memory. */
function memory(): number {
  const group = /^0::(.*)$/m.exec(text("/proc/self/cgroup") ?? "")?.[1] ?? "/";
  const limit = one(`/sys/fs/cgroup${group}/memory.max`);
  return Math.min(limit ?? Number.POSITIVE_INFINITY, totalmem());
}

const PAGE_BYTES = 4096;

export function readMachine(): Machine {
  const [receive, send] = [one(sysctl("net.ipv4.tcp_rmem")), one(sysctl("net.ipv4.tcp_wmem"))];
  return {
    kernel: release(),
    cpus: availableParallelism(),
    descriptors: descriptors(),
    descriptorsAllowed: one(sysctl("fs.nr_open")),
    files: one(sysctl("fs.file-max")),
    somaxconn: one(sysctl("net.core.somaxconn")),
    synBacklog: one(sysctl("net.ipv4.tcp_max_syn_backlog")),
    localPorts: pair(numbers(sysctl("net.ipv4.ip_local_port_range"))),
    reservedPorts: text(sysctl("net.ipv4.ip_local_reserved_ports")) ?? "",
    tcpMemory: tcpMemory(PAGE_BYTES),
    leastBuffers: receive === undefined || send === undefined ? undefined : [receive, send],
    trackedConnections: one(sysctl("net.netfilter.nf_conntrack_max")),
    memory: memory(),
  };
}
