/**
 * What only the kernel counts about sockets, for metrics: parsers of /proc/net/netstat and /proc/net/sockstat, pure,
 * and their reader. The figures are the network namespace's, not this server's alone. What is not there (a hidden
 * /proc, a kernel without IPv6) is undefined, and never zero.
 */
import { readFile } from "node:fs/promises";

/** Newcomers that the kernel lost because an accept queue was full, or for want of memory (TcpExt, since boot). */
export interface ListenLosses {
  readonly overflows: number;
  /** Overflows, and every other reason. */
  readonly drops: number;
}

/** TCP sockets by what they are, now. */
export interface SocketCounts {
  readonly timeWait: number;
  /** IPv4 and IPv6. */
  readonly inUse: number;
  /** Closed by their process, and not done yet. */
  readonly orphaned: number;
}

/** A count of a "Name: a b c" line of names, over the line of values that follows it. */
function pairedCount(text: string, name: string, field: string): number | undefined {
  const [names, values] = text.split("\n").filter((line) => line.startsWith(`${name}: `));
  const index = names?.split(/\s+/).indexOf(field) ?? -1;
  return index > 0 ? countOf(values?.split(/\s+/)[index]) : undefined;
}

/** A count of a "Name: a 1 b 2" line. */
function namedCount(text: string, name: string, field: string): number | undefined {
  const words = text
    .split("\n")
    .find((line) => line.startsWith(`${name}: `))
    ?.trim()
    .split(/\s+/);
  const index = words?.indexOf(field) ?? -1;
  return index > 0 ? countOf(words?.[index + 1]) : undefined;
}

const countOf = (word: string | undefined): number | undefined => (/^\d+$/.test(word ?? "") ? Number(word) : undefined);

/** Of the text of /proc/net/netstat. */
export function parseListenLosses(netstat: string): ListenLosses | undefined {
  const overflows = pairedCount(netstat, "TcpExt", "ListenOverflows");
  const drops = pairedCount(netstat, "TcpExt", "ListenDrops");
  return overflows === undefined || drops === undefined ? undefined : { overflows, drops };
}

/** Of the texts of /proc/net/sockstat and sockstat6; the second may be empty. */
export function parseSocketCounts(sockstat: string, sockstat6: string): SocketCounts | undefined {
  const [timeWait, inUse, orphaned] = ["tw", "inuse", "orphan"].map((field) => namedCount(sockstat, "TCP", field));
  if (timeWait === undefined || inUse === undefined || orphaned === undefined) return undefined;
  return { timeWait, inUse: inUse + (namedCount(sockstat6, "TCP6", "inuse") ?? 0), orphaned };
}

const text = (path: string): Promise<string> => readFile(path, "utf8").catch(() => "");

/** Reads them. */
export async function readListenLosses(): Promise<ListenLosses | undefined> {
  return parseListenLosses(await text("/proc/net/netstat"));
}

/** Reads them. */
export async function readSocketCounts(): Promise<SocketCounts | undefined> {
  return parseSocketCounts(await text("/proc/net/sockstat"), await text("/proc/net/sockstat6"));
}
