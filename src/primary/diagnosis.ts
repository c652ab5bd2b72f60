/**
 * What a configuration needs that a machine does not give. Pure: machine.ts reads the machine, `headrace doctor` prints
 * the findings, and a start says the problems. A *problem* is a configuration that cannot hold; a *hint* costs
 * something under load and nothing else.
 */
import type { Config } from "../config/config.ts";
import type { Machine } from "./machine.ts";

export interface Finding {
  readonly severity: "problem" | "hint";
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
/** What a connection costs outside of its buffers, in the process and in the kernel. */
const CONNECTION_BYTES = 4096;
/** Oldest kernel with everything that is used: SO_DETACH_REUSEPORT_BPF, pidfd, memfd seals. */
const LEAST_KERNEL = [5, 4] as const;

const many = (count: number): string => count.toLocaleString("en-US");
const mebibytes = (bytes: number): string => `${many(Math.ceil(bytes / 1024 ** 2))} MiB`;

function powerAbove(value: number): number {
  return 2 ** Math.ceil(Math.log2(value));
}

function descriptorFindings({ workers, connections, listeners }: Config, machine: Machine): Finding[] {
  const share = Math.ceil((connections / workers) * (workers === 1 ? 1 : UNEVEN));
  const needed = share + workers * listeners.length + OTHER_DESCRIPTORS;
  const { descriptors, descriptorsAllowed, files } = machine;
  const found: Finding[] = [];
  if (descriptors !== undefined && needed > descriptors) {
    const wanted = powerAbove(needed);
    const raise =
      descriptorsAllowed !== undefined && wanted > descriptorsAllowed ? `sysctl -w fs.nr_open=${wanted} && ` : "";
    found.push({
      severity: "problem",
      message: `limits.connections ${many(connections)} over ${workers} workers needs ${many(needed)} descriptors in each; RLIMIT_NOFILE is ${many(descriptors)}`,
      repair: `${raise}ulimit -n ${wanted}   (systemd: LimitNOFILE=${wanted}), or more workers`,
    });
  }
  const total = connections + workers * (workers * listeners.length + OTHER_DESCRIPTORS);
  if (files !== undefined && total > files) {
    found.push({
      severity: "problem",
      message: `limits.connections ${many(connections)} needs ${many(total)} open files in all; fs.file-max is ${many(files)}`,
      repair: `sysctl -w fs.file-max=${powerAbove(total)}`,
    });
  }
  return found;
}

function queueFindings({ listeners }: Config, { somaxconn, synBacklog }: Machine): Finding[] {
  const backlog = Math.max(...listeners.map(({ socket }) => socket.backlog));
  const found: Finding[] = [];
  if (somaxconn !== undefined && backlog > somaxconn) {
    found.push({
      severity: "hint",
      message: `socket.backlog ${many(backlog)} is cut to net.core.somaxconn, ${many(somaxconn)}: a burst of more newcomers on one worker waits for retransmissions`,
      repair: `sysctl -w net.core.somaxconn=${backlog}`,
    });
  }
  if (synBacklog !== undefined && somaxconn !== undefined && synBacklog < Math.min(backlog, somaxconn)) {
    const wanted = Math.min(backlog, somaxconn);
    found.push({
      severity: "hint",
      message: `net.ipv4.tcp_max_syn_backlog ${many(synBacklog)} is below the accept queue of ${many(wanted)}: SYN cookies begin earlier than they need to`,
      repair: `sysctl -w net.ipv4.tcp_max_syn_backlog=${wanted}`,
    });
  }
  return found;
}

/** Whether a list like "8080,9000-9010" has a port. */
function reserved(list: string, port: number): boolean {
  return list.split(",").some((part) => {
    const [from = "", to = from] = part.split("-");
    return /^\d+$/.test(from) && Number(from) <= port && port <= Number(to);
  });
}

function portFindings({ listeners }: Config, { localPorts, reservedPorts }: Machine): Finding[] {
  if (!localPorts) return [];
  const [first, last] = localPorts;
  return listeners.flatMap(({ name, address: { port } }): Finding[] => {
    if (port < first || port > last || reserved(reservedPorts, port)) return [];
    const list = reservedPorts === "" ? port : `${reservedPorts},${port}`;
    return [
      {
        severity: "hint",
        message: `port ${port} of listener "${name}" is among those that outgoing connections use (${first} to ${last}): one of them may hold it when the server starts`,
        repair: `sysctl -w net.ipv4.ip_local_reserved_ports=${list}`,
      },
    ];
  });
}

function memoryFindings({ workers, connections, bufferMemory }: Config, machine: Machine): Finding[] {
  const { tcpMemory, leastBuffers, memory } = machine;
  const found: Finding[] = [];
  if (tcpMemory && leastBuffers) {
    const needed = connections * (leastBuffers[0] + leastBuffers[1]);
    const pages = Math.ceil(needed / 4096);
    if (needed > tcpMemory[1]) {
      found.push({
        severity: "problem",
        message: `the kernel's smallest buffers for ${many(connections)} connections take ${mebibytes(needed)}; TCP is short of memory from ${mebibytes(tcpMemory[1])} on (net.ipv4.tcp_mem)`,
        repair: `sysctl -w net.ipv4.tcp_mem="${pages} ${Math.ceil(pages * 1.5)} ${pages * 2}"`,
      });
    }
  }
  const needed = workers * (WORKER_BYTES + bufferMemory) + connections * CONNECTION_BYTES;
  if (needed > memory) {
    const fits = Math.floor((memory - connections * CONNECTION_BYTES) / workers - WORKER_BYTES);
    found.push({
      severity: "problem",
      message: `${workers} workers with limits.bufferMemory ${mebibytes(bufferMemory)} and ${many(connections)} connections may take ${mebibytes(needed)}; there are ${mebibytes(memory)}`,
      repair:
        fits >= 1024 ** 2
          ? `limits: { bufferMemory: ${Math.floor(fits / 1024 ** 2)}MiB }   (in the configuration), or fewer workers`
          : "fewer workers or connections, or more memory",
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
      message: `kernel ${kernel} is older than ${least}: workers cannot be removed without resetting connections`,
      repair: `a kernel from ${least} on`,
    });
  }
  if (trackedConnections !== undefined && trackedConnections < connections) {
    found.push({
      severity: "problem",
      message: `limits.connections ${many(connections)} is more than the firewall tracks (net.netfilter.nf_conntrack_max ${many(trackedConnections)}): it drops the rest`,
      repair: `sysctl -w net.netfilter.nf_conntrack_max=${powerAbove(2 * connections)}`,
    });
  }
  if (workers > cpus) {
    found.push({
      severity: "hint",
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
    ...memoryFindings(config, machine),
    ...queueFindings(config, machine),
    ...portFindings(config, machine),
  ];
  return [
    ...found.filter(({ severity }) => severity === "problem"),
    ...found.filter(({ severity }) => severity === "hint"),
  ];
}
