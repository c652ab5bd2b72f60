/**
 * Who listens on an address: /proc/net/tcp and tcp6 (udp and udp6) give the socket's inode, /proc/PID/fd the process that holds
 * it (proc_net(5), proc_pid_fd(5)). Only called after a bind has failed, to make the refusal useful. Processes of
 * other users are not visible unless this one is root: then there is no answer.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { isIPv6, SocketAddress } from "node:net";
import type { Address } from "../base/address.ts";

export interface SocketOwner {
  readonly pid: number;
  /** Its command line, shortened. */
  readonly command: string;
}

interface ListeningSocket {
  readonly host: string;
  readonly port: number;
  readonly inode: string;
}

/** Of a TCP socket that listens, and of a UDP socket that is not connected. */
const LISTEN = { tcp: "0A", udp: "07" } as const;
const MAX_COMMAND = 80;
const ANY: ReadonlySet<string> = new Set(["0.0.0.0", "::"]);

/** One way to write each address; IPv4 in IPv6 becomes IPv4. */
function canonical(host: string): string {
  const address = isIPv6(host) ? new SocketAddress({ address: host, family: "ipv6" }).address : host;
  return address.startsWith("::ffff:") && address.includes(".") ? address.slice("::ffff:".length) : address;
}

/** The kernel prints each 32-bit word in the machine's byte order: little-endian wherever Node runs on Linux but s390x. */
function hostOf(hex: string): string {
  const bytes = Buffer.from(hex, "hex").swap32();
  if (bytes.length === 4) return bytes.join(".");
  const words = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return canonical(words.join(":"));
}

/** The listening sockets in the text of /proc/net/tcp or tcp6, or udp or udp6. */
export function parseListening(table: string, protocol: Address["protocol"] = "tcp"): ListeningSocket[] {
  return table
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((columns) => columns[3] === LISTEN[protocol])
    .map((columns) => {
      const [host = "", port = ""] = (columns[1] ?? "").split(":");
      return { host: hostOf(host), port: Number.parseInt(port, 16), inode: columns[9] ?? "" };
    });
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function holds(pid: string, links: ReadonlySet<string>): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return links.has(readlinkSync(`/proc/${pid}/fd/${fd}`));
      } catch {
        return false;
      }
    });
  } catch {
    return false;
  }
}

/** Field 4 of /proc/PID/stat, counted after the command in brackets. */
function parentOf(pid: string): string {
  const stat = read(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] ?? "";
}

/** The process that stands in the way of binding `host:port`; of a family that shares the socket, its head. */
export function findOwner(host: string, port: number, protocol: Address["protocol"] = "tcp"): SocketOwner | undefined {
  const wanted = canonical(host);
  const candidates = ["", "6"]
    .flatMap((family) => parseListening(read(`/proc/net/${protocol}${family}`), protocol))
    .filter((socket) => socket.port === port)
    .filter((socket) => socket.host === wanted || ANY.has(socket.host) || ANY.has(wanted));
  const exact = candidates.filter((socket) => socket.host === wanted);
  const links = new Set((exact.length > 0 ? exact : candidates).map(({ inode }) => `socket:[${inode}]`));
  if (links.size === 0) return undefined;
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && holds(name, links));
  const head = pids.find((pid) => !pids.includes(parentOf(pid))) ?? pids[0];
  if (head === undefined) return undefined;
  const command = read(`/proc/${head}/cmdline`)
    .replaceAll(/\p{Cc}+/gu, " ")
    .trim();
  return {
    pid: Number(head),
    command: command.length > MAX_COMMAND ? `${command.slice(0, MAX_COMMAND - 1)}…` : command,
  };
}
