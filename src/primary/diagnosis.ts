/**
 * What a configuration needs that a machine does not give. Pure: machine.ts reads the machine, `headrace doctor` prints
 * the findings, and a start says the problems. A *problem* is a configuration that cannot hold; a *hint* costs
 * something under load and nothing else.
 */
import { DEFAULT_LIMITS } from "../base/settings.ts";
import type { Config } from "../config/config.ts";
import type { BufferSizes, Machine } from "./machine.ts";
import { portsHave } from "./sysctl-file.ts";

export interface Finding {
  readonly severity: "problem" | "hint";
  /** What was looked at, in a few words; a kernel setting's name where it is one. */
  readonly check: string;
  readonly found: string;
  readonly wanted: string;
  /** What does not fit, with both figures. */
  readonly message: string;
  /** A command that repairs it, or what to write where. */
  readonly repair: string;
}

/** What a worker has open beside connections and listening sockets: channels, the log, the service's own. */
const OTHER_DESCRIPTORS = 256;
/** The kernel spreads connections by hash: the fullest worker has this much more than its share. */
const UNEVEN = 1.25;
/** A worker process without a connection. */
const WORKER_BYTES = 80 * 1024 ** 2;
/** A thread of a pool, before the service's own code. */
const THREAD_BYTES = 10 * 1024 ** 2;
/** What a connection costs outside of its buffers, in the process and in the kernel. */
const CONNECTION_BYTES = 4096;
/** Oldest kernel with everything that is used: SO_DETACH_REUSEPORT_BPF, pidfd, memfd seals. */
const LEAST_KERNEL = [5, 4] as const;

export const RESERVED_PORTS = "net.ipv4.ip_local_reserved_ports";

/** What a UDP socket is given where no size is configured (native/udp.c). */
const DATAGRAMS_RECEIVE_BYTES = 4 * 1024 ** 2;

const many = (count: number): string => count.toLocaleString("en-US");
const mebibytes = (bytes: number): string => `${many(Math.ceil(bytes / 1024 ** 2))} MiB`;

const kibibytes = (bytes: number): string => `${many(Math.floor(bytes / 1024))} KiB`;

/** Those whose sockets have queues of newcomers, and connections with buffers. */
const ofConnections = ({ listeners }: Config): Config["listeners"] =>
  listeners.filter(({ address }) => address.protocol === "tcp");

function powerAbove(value: number): number {
  return 2 ** Math.ceil(Math.log2(value));
}

/** Open files of one worker, at most. */
export function descriptorsNeeded({ workers, connections, listeners }: Config): number {
  const share = Math.ceil((connections / workers) * (workers === 1 ? 1 : UNEVEN));
  return share + workers * listeners.length + OTHER_DESCRIPTORS;
}

function descriptorFindings(config: Config, machine: Machine): Finding[] {
  const { workers, connections, listeners } = config;
  const needed = descriptorsNeeded(config);
  const { descriptors, descriptorsAllowed, files } = machine;
  const found: Finding[] = [];
  if (descriptors !== undefined && needed > descriptors) {
    const wanted = powerAbove(needed);
    const raise =
      descriptorsAllowed !== undefined && wanted > descriptorsAllowed ? `sysctl -w fs.nr_open=${wanted} && ` : "";
    found.push({
      severity: "problem",
      check: "open files of a worker",
      found: many(descriptors),
      wanted: many(needed),
      message: `limits.connections ${many(connections)} over ${workers} workers needs ${many(needed)} descriptors in each; RLIMIT_NOFILE is ${many(descriptors)}`,
      repair: `${raise}ulimit -n ${wanted}   (systemd: LimitNOFILE=${wanted}), or more workers`,
    });
  }
  const total = connections + workers * (workers * listeners.length + OTHER_DESCRIPTORS);
  if (files !== undefined && total > files) {
    found.push({
      severity: "problem",
      check: "fs.file-max",
      found: String(files),
      wanted: String(powerAbove(total)),
      message: `limits.connections ${many(connections)} needs ${many(total)} open files in all; fs.file-max is ${many(files)}`,
      repair: `sysctl -w fs.file-max=${powerAbove(total)}`,
    });
  }
  return found;
}

function queueFindings(config: Config, { somaxconn, synBacklog }: Machine): Finding[] {
  const backlog = Math.max(0, ...ofConnections(config).map(({ socket }) => socket.backlog));
  const found: Finding[] = [];
  if (somaxconn !== undefined && backlog > somaxconn) {
    found.push({
      severity: "hint",
      check: "net.core.somaxconn",
      found: String(somaxconn),
      wanted: String(backlog),
      message: `socket.backlog ${many(backlog)} is cut to net.core.somaxconn, ${many(somaxconn)}: a burst of more newcomers on one worker waits for retransmissions`,
      repair: `sysctl -w net.core.somaxconn=${backlog}`,
    });
  }
  if (synBacklog !== undefined && somaxconn !== undefined && synBacklog < Math.min(backlog, somaxconn)) {
    const wanted = Math.min(backlog, somaxconn);
    found.push({
      severity: "hint",
      check: "net.ipv4.tcp_max_syn_backlog",
      found: String(synBacklog),
      wanted: String(wanted),
      message: `net.ipv4.tcp_max_syn_backlog ${many(synBacklog)} is below the accept queue of ${many(wanted)}: SYN cookies begin earlier than they need to`,
      repair: `sysctl -w net.ipv4.tcp_max_syn_backlog=${wanted}`,
    });
  }
  return found;
}

/** A connection's sender waits for room; a datagram that finds none is lost. */
function datagramFindings({ listeners }: Config, { receiveBuffer, networkAdmin }: Machine): Finding[] {
  if (!receiveBuffer || networkAdmin) return [];
  const { mostAsked } = receiveBuffer;
  const wants = listeners
    .filter(({ address }) => address.protocol === "udp")
    .map(({ name, socket }) => ({
      name,
      bytes: socket.receiveBuffer === "off" ? DATAGRAMS_RECEIVE_BYTES : socket.receiveBuffer,
    }))
    .filter(({ bytes }) => bytes > mostAsked);
  const [first] = wants.sort((a, b) => b.bytes - a.bytes);
  if (!first) return [];
  return [
    {
      severity: "hint",
      check: "net.core.rmem_max",
      found: String(mostAsked),
      wanted: String(first.bytes),
      message: `listener "${first.name}" gets a receive buffer of ${kibibytes(mostAsked)} in place of ${kibibytes(first.bytes)} (net.core.rmem_max): datagrams of a burst that it does not hold are lost`,
      repair: `sysctl -w net.core.rmem_max=${first.bytes}`,
    },
  ];
}

function portFindings({ listeners }: Config, { localPorts, reservedPorts }: Machine): Finding[] {
  if (!localPorts) return [];
  const [first, last] = localPorts;
  return listeners.flatMap(({ name, address: { port } }): Finding[] => {
    if (port < first || port > last || portsHave(reservedPorts, port, port)) return [];
    const list = reservedPorts === "" ? port : `${reservedPorts},${port}`;
    return [
      {
        severity: "hint",
        check: RESERVED_PORTS,
        found: reservedPorts || "none",
        wanted: String(port),
        message: `port ${port} of listener "${name}" is among those that outgoing connections use (${first} to ${last}): one of them may hold it when the server starts`,
        repair: `sysctl -w ${RESERVED_PORTS}=${list}`,
      },
    ];
  });
}

type SocketBuffer = "receiveBuffer" | "sendBuffer";

/** The two buffers of a connection in the kernel, of the listener that has the largest: surely, and at worst. */
function kernelBuffers(config: Config, machine: Machine): { surely: number; atWorst: number } | undefined {
  const sum = { surely: 0, atWorst: 0 };
  for (const name of ["receiveBuffer", "sendBuffer"] as const satisfies readonly SocketBuffer[]) {
    const sizes = machine[name];
    if (!sizes) return undefined;
    const each = ofConnections(config).map(({ socket }) => bufferBytes(socket[name], sizes));
    sum.surely += Math.max(0, ...each.map(({ surely }) => surely));
    sum.atWorst += Math.max(0, ...each.map(({ atWorst }) => atWorst));
  }
  return sum;
}

/** Whoever asks for a size gets twice as much (socket(7)), and the kernel no longer makes it smaller or larger. */
function bufferBytes(
  asked: number | "off",
  { least, most, mostAsked }: BufferSizes,
): { surely: number; atWorst: number } {
  if (asked === "off") return { surely: least, atWorst: most };
  const given = Math.max(least, 2 * Math.min(asked, mostAsked));
  return { surely: given, atWorst: given };
}

function tcpFindings(config: Config, machine: Machine): Finding[] {
  const { connections } = config;
  const { tcpMemory, pageBytes } = machine;
  const buffers = kernelBuffers(config, machine);
  if (!tcpMemory || !buffers) return [];
  const [, pressure, high] = tcpMemory;
  const [surely, atWorst] = [connections * buffers.surely, connections * buffers.atWorst];
  const pages = Math.ceil(surely / pageBytes);
  if (surely > pressure) {
    return [
      {
        severity: "problem",
        check: "net.ipv4.tcp_mem",
        found: mebibytes(pressure),
        wanted: mebibytes(surely),
        message: `the kernel's buffers for ${many(connections)} connections take ${mebibytes(surely)} at least; TCP is short of memory from ${mebibytes(pressure)} on (net.ipv4.tcp_mem)`,
        repair: `sysctl -w net.ipv4.tcp_mem="${pages} ${Math.ceil(pages * 1.5)} ${pages * 2}"`,
      },
    ];
  }
  if (atWorst <= high) return [];
  const fits = Math.floor(pressure / connections / 4 / 1024);
  return [
    {
      severity: "hint",
      check: "kernel's buffers, at worst",
      found: mebibytes(high),
      wanted: mebibytes(atWorst),
      message: `the kernel's buffers of ${many(connections)} connections may grow to ${mebibytes(atWorst)}; at ${mebibytes(high)} TCP drops what it cannot hold (net.ipv4.tcp_mem)`,
      repair:
        fits >= 4
          ? `socket: { receiveBuffer: ${fits}KiB, sendBuffer: ${fits}KiB }   (in the configuration: none grows any more)`
          : "fewer connections, or more net.ipv4.tcp_mem",
    },
  ];
}

/** Threads of one pool in each worker, where a service may have one. */
function poolThreads({ listeners, tasks, workers }: Config, { cpus }: Machine): number {
  const pooled = listeners.some(({ service }) => service.kind === "module" || service.name === "hash-frame");
  if (!pooled) return 0;
  return typeof tasks.threads === "number" ? tasks.threads : Math.max(1, Math.floor(cpus / workers));
}

function memoryFindings(config: Config, machine: Machine): Finding[] {
  const { workers, connections, bufferMemory, listeners } = config;
  const { memory, tcpMemory } = machine;
  const found: Finding[] = [];
  const threads = poolThreads(config, machine);
  const worker = WORKER_BYTES + threads * THREAD_BYTES;
  const kernel = Math.min(
    connections * (kernelBuffers(config, machine)?.surely ?? 0),
    tcpMemory?.[2] ?? Number.POSITIVE_INFINITY,
  );
  const needed = workers * (worker + bufferMemory) + connections * CONNECTION_BYTES + kernel;
  if (needed > memory) {
    const fits = Math.floor((memory - connections * CONNECTION_BYTES - kernel) / workers - worker);
    const pool = threads > 0 ? `, ${threads} pool thread${threads === 1 ? "" : "s"} each` : "";
    found.push({
      severity: "problem",
      check: "memory",
      found: mebibytes(memory),
      wanted: mebibytes(needed),
      message: `${workers} workers with limits.bufferMemory ${mebibytes(bufferMemory)}${pool}, and ${many(connections)} connections with the kernel's buffers may take ${mebibytes(needed)}; there are ${mebibytes(memory)}`,
      repair:
        fits >= 1024 ** 2
          ? `limits: { bufferMemory: ${Math.floor(fits / 1024 ** 2)}MiB }   (in the configuration), or fewer workers`
          : "fewer workers or connections, or more memory",
    });
  }
  const buffered = Math.max(...listeners.map(({ limits }) => limits.buffered ?? DEFAULT_LIMITS.buffered));
  if (buffered > bufferMemory * 0.75) {
    found.push({
      severity: "hint",
      check: "limits.buffered",
      found: mebibytes(buffered),
      wanted: mebibytes(bufferMemory * 0.75),
      message: `limits.buffered ${mebibytes(buffered)} is out of reach: at three quarters of limits.bufferMemory ${mebibytes(bufferMemory)} whoever holds most is closed (memory-pressure)`,
      repair: `limits: { bufferMemory: ${Math.ceil((buffered * 2) / 1024 ** 2)}MiB }   (in the configuration), or less buffered`,
    });
  }
  return found;
}

function kernelFindings({ workers, connections }: Config, machine: Machine): Finding[] {
  const { kernel, cpus, trackedConnections } = machine;
  const [major = 0, minor = 0] = kernel.split(".").map((part) => Number.parseInt(part, 10));
  const found: Finding[] = [];
  const [leastMajor, leastMinor] = LEAST_KERNEL;
  if (major < leastMajor || (major === leastMajor && minor < leastMinor)) {
    const least = LEAST_KERNEL.join(".");
    found.push({
      severity: "problem",
      check: "kernel",
      found: kernel,
      wanted: least,
      message: `kernel ${kernel} is older than ${least}: workers cannot be removed without resetting connections`,
      repair: `a kernel from ${least} on`,
    });
  }
  if (trackedConnections !== undefined && trackedConnections < connections) {
    found.push({
      severity: "problem",
      check: "net.netfilter.nf_conntrack_max",
      found: String(trackedConnections),
      wanted: String(powerAbove(2 * connections)),
      message: `limits.connections ${many(connections)} is more than the firewall tracks (net.netfilter.nf_conntrack_max ${many(trackedConnections)}): it drops the rest`,
      repair: `sysctl -w net.netfilter.nf_conntrack_max=${powerAbove(2 * connections)}`,
    });
  }
  if (workers > cpus) {
    found.push({
      severity: "hint",
      check: "CPUs",
      found: many(cpus),
      wanted: many(workers),
      message: `${workers} workers share ${cpus} CPUs: more processes than that only take turns`,
      repair: "workers: auto   (in the configuration)",
    });
  }
  return found;
}

/** Problems first. */
export function diagnose(config: Config, machine: Machine): Finding[] {
  const found = [
    ...kernelFindings(config, machine),
    ...descriptorFindings(config, machine),
    ...tcpFindings(config, machine),
    ...memoryFindings(config, machine),
    ...queueFindings(config, machine),
    ...datagramFindings(config, machine),
    ...portFindings(config, machine),
  ];
  return [
    ...found.filter(({ severity }) => severity === "problem"),
    ...found.filter(({ severity }) => severity === "hint"),
  ];
}
