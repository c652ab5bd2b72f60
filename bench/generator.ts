/**
 * The load generator, `headrace bench --json`, seen from outside: what it is asked and what it answers. It checks every
 * reply byte for byte; what it found wrong becomes a fault of the run.
 */
import { readFileSync } from "node:fs";
import { type Machine, onCores } from "./machine.ts";
import type { Codec } from "./options.ts";
import { HEADRACE_MAIN } from "./peers.ts";
import { type Child, startChild } from "./process/child.ts";

/** One JSON object on the generator's stdout. */
export interface LoadResult {
  connections: {
    requested: number;
    opened: number;
    failed: Record<string, number>;
    resets: Record<string, number>;
    closedByPeer: number;
  };
  messages: {
    sent: number;
    received: number;
    verified: number;
    mismatched: number;
    /** Never answered. */
    outstanding: number;
    /** Due by the rate and never sent. */
    unsent: number;
  };
  bytes: { sent: number; received: number };
  /** Length of the measured window. */
  seconds: number;
  /** Messages received in the window; with `churn` connections come and gone. */
  perSecond: number;
  /** Null where waiting says nothing: in a flood. */
  latencyMs: { p50: number; p90: number; p99: number; p999: number; p9999: number; max: number } | null;
  /** HDR, base64, microseconds. */
  histogram: string | null;
  cpuSeconds: number;
  /** Epoch ms. */
  windows: { startedAt: number; endedAt: number };
}

export interface Load {
  /** `datagram`: over UDP, where connections are flows. */
  codec: Codec | "datagram";
  sizeBytes: number;
  connections: number;
  mode: "closed" | "flood" | "churn" | "hold";
  pipeline?: number;
  rate?: number;
  /** Over TLS: with a handshake for each connection, or with the session of the first. */
  tls?: "full" | "resume";
}

interface Window {
  seconds: number;
  warmupSeconds: number;
}

/** What every run of a comparison has in common. */
export interface Bench {
  machine: Machine;
  window: Window;
  /** Instead of `headrace bench`. */
  generator?: readonly string[] | undefined;
}

const HEADRACE_BENCH = [process.execPath, HEADRACE_MAIN, "bench"];

/** For what comes beside warm-up and window: 10,000 connections, a slow machine. */
const SLACK_MS = 60_000;

/** Ports of one source address towards one server address. */
function portsPerSource(): number {
  const [low = 32_768, high = 60_999] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "latin1")
    .split(/\s+/)
    .map(Number);
  return high - low;
}

/** Enough source addresses for the ports; churn uses up ports as fast as it connects, and gets four. */
function sources(load: Load): string[] {
  const count = load.mode === "churn" ? 4 : Math.ceil(load.connections / (portsPerSource() * 0.9));
  return count === 1 ? [] : ["--source", Array.from({ length: count }, (_, index) => `127.0.0.${index + 2}`).join(",")];
}

/** The command without the address, as a reader would type it. */
export function loadArguments(load: Load, window: Window, machine: Machine): string[] {
  const { pipeline = 1, rate } = load;
  const processes = Math.min(machine.clientCores, load.connections);
  const milliseconds = (seconds: number): string => `${Math.round(seconds * 1000)}ms`;
  return [
    ...(load.codec === "datagram" ? [] : ["--codec", load.codec]),
    ...["--size", String(load.sizeBytes), "--connections", String(load.connections)],
    ...(load.mode === "closed" ? [] : [`--${load.mode}`]),
    ...(load.tls === undefined ? [] : [load.tls === "full" ? "--tls" : "--tls-resume"]),
    ...(pipeline === 1 ? [] : ["--pipeline", String(pipeline)]),
    ...(rate === undefined ? [] : ["--rate", String(rate)]),
    ...(load.mode === "hold"
      ? []
      : ["--duration", milliseconds(window.seconds), "--warmup", milliseconds(window.warmupSeconds)]),
    ...["--processes", String(processes)],
    ...sources(load),
    "--json",
  ];
}

/**
 * What went wrong from the client's side. Empty: every connection stood and every reply was right. A flood is cut off
 * with megabytes on their way, so only there an answer may still be due; had bytes been lost, those after them would
 * differ from what was sent.
 */
export function loadFaults(result: LoadResult, load: Load): string[] {
  const { connections, messages } = result;
  const list = (kind: string, counts: Record<string, number>): string[] =>
    Object.entries(counts).flatMap(([code, count]) => (count > 0 ? [`${count} connections ${kind}: ${code}`] : []));
  const faults = [...list("failed", connections.failed), ...list("reset", connections.resets)];
  if (connections.closedByPeer > 0) faults.push(`${connections.closedByPeer} connections closed by the server`);
  if (connections.opened === 0) faults.push("no connection was opened");
  if (messages.outstanding > 0 && load.mode !== "flood") faults.push(`${messages.outstanding} messages got no reply`);
  if (messages.mismatched > 0) faults.push(`${messages.mismatched} replies differ from what was sent`);
  if (messages.received === 0) faults.push("no reply at all");
  else if (messages.verified < messages.received) {
    faults.push(`${messages.received - messages.verified} replies were not verified`);
  }
  return faults;
}

interface Generator {
  /** Rejects when it ends, or dawdles, without a result. */
  result: Promise<LoadResult>;
  /** Closes its input, which ends a `hold`, and waits for its end. */
  end(): Promise<void>;
}

/** The result in a line, or undefined when the line is another: it also announces events. */
function parseResult(line: string): LoadResult | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    const object = JSON.parse(line) as LoadResult | { event: string };
    return "windows" in object ? object : undefined;
  } catch {
    return undefined;
  }
}

function awaitResult(child: Child, timeoutMs: number, found: Promise<LoadResult>): Promise<LoadResult> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("the load generator does not finish")), timeoutMs);
    void child.ended.then((how) => {
      clearTimeout(timer);
      reject(new Error(`the load generator gave no result: ${how}. ${child.complaint()}`));
    });
    void found.then((result) => {
      clearTimeout(timer);
      resolve(result);
    });
  });
}

/** Runs it against `address`. */
export async function startGenerator(
  address: string,
  load: Load,
  { machine, window, generator: command = HEADRACE_BENCH }: Bench,
): Promise<Generator> {
  const argv = onCores(machine, "client", [...command, address, ...loadArguments(load, window, machine)]);
  let take: (result: LoadResult) => void = () => {};
  const found = new Promise<LoadResult>((resolve) => {
    take = resolve;
  });
  const child = await startChild({ argv }, (line) => {
    const result = parseResult(line);
    if (result !== undefined) take(result);
  });
  const end = async (): Promise<void> => {
    child.closeInput();
    await child.end();
  };
  const timeoutMs = (window.seconds + window.warmupSeconds) * 1000 + SLACK_MS;
  return { result: awaitResult(child, timeoutMs, found), end };
}
