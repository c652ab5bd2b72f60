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
  /** What a connection's receive buffer may be. */
  readonly receiveBuffer: BufferSizes | undefined;
  readonly sendBuffer: BufferSizes | undefined;
  /** net.netfilter.nf_conntrack_max; undefined where connections are not tracked. */
  readonly trackedConnections: number | undefined;
  /** This process may pass the bounds of its sockets (CAP_NET_ADMIN). */
  readonly networkAdmin: boolean;
  /** Bytes: of the control group, or a group around it, if one has a limit; else of the machine. */
  readonly memory: number;
  /** Of one page of memory. */
  readonly pageBytes: number;
}

/** Bytes: as small as the kernel makes it, as large as it lets it grow (tcp_rmem), and the most one may ask for. */
export interface BufferSizes {
  readonly least: number;
  readonly most: number;
  readonly mostAsked: number;
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

function bufferSizes(direction: "r" | "w"): BufferSizes | undefined {
  const [least, , most] = numbers(sysctl(`net.ipv4.tcp_${direction}mem`));
  const mostAsked = one(sysctl(`net.core.${direction}mem_max`));
  return least === undefined || most === undefined || mostAsked === undefined ? undefined : { least, most, mostAsked };
}

/**
 * The least memory.max (cgroup v2) of a group and of all around it: each of them holds. `limitOf`: that of one group;
 * undefined where it has none, or says "max".
 */
export function groupMemory(group: string, limitOf: (group: string) => number | undefined): number {
  let least = Number.POSITIVE_INFINITY;
  for (let path = group; ; path = path.slice(0, path.lastIndexOf("/"))) {
    least = Math.min(least, limitOf(path) ?? least);
    if (path === "" || path === "/") return least;
  }
}

function memory(): number {
  const group = /^0::(.*)$/m.exec(text("/proc/self/cgroup") ?? "")?.[1] ?? "/";
  const limit = groupMemory(group, (path) => one(`/sys/fs/cgroup${path}/memory.max`));
  return Math.min(limit, totalmem());
}

/** Of the capabilities in force (capabilities(7)). */
const CAP_NET_ADMIN = 12n;

function networkAdmin(): boolean {
  const held = /^CapEff:\s*([0-9a-f]+)$/m.exec(text("/proc/self/status") ?? "")?.[1] ?? "0";
  return ((BigInt(`0x${held}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}

const USUAL_PAGE_BYTES = 4096;
/** Of the auxiliary vector (getauxval(3)), whose entries are two words. */
const AT_PAGESZ = 6n;

function pageBytes(): number {
  try {
    const vector = readFileSync("/proc/self/auxv");
    const words = new BigUint64Array(vector.buffer.slice(vector.byteOffset, vector.byteOffset + vector.length));
    for (let at = 0; at + 1 < words.length; at += 2) if (words[at] === AT_PAGESZ) return Number(words[at + 1]);
  } catch {
    // Hidden, as it may be in a container.
  }
  return USUAL_PAGE_BYTES;
}

export function readMachine(): Machine {
  const page = pageBytes();
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
    tcpMemory: tcpMemory(page),
    receiveBuffer: bufferSizes("r"),
    sendBuffer: bufferSizes("w"),
    trackedConnections: one(sysctl("net.netfilter.nf_conntrack_max")),
    networkAdmin: networkAdmin(),
    memory: memory(),
    pageBytes: page,
  };
}
