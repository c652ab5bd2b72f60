/**
 * Who is compared, and how each is started. Every peer prints one JSON line with `"msg":"ready"` and the address it
 * listens on; the kernel chooses the port, so a run never meets another run's TIME_WAIT. The peers' sources are in
 * peers/ and are compiled here, at run time.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { openCollector } from "./collector.ts";
import { firstLine, type Machine } from "./machine.ts";
import { identityFiles, writeTlsConfig } from "./tls-files.ts";

export const PEER_IDS = ["headrace", "c", "go", "node-net", "headrace-off", "headrace-all", "headrace-traced"] as const;
export type ChosenId = (typeof PEER_IDS)[number];
/**
 * `headrace-frame`: headrace again, beside itself; `headrace-baseline`: another checkout of it. The last two echo
 * datagrams (udp/peers.ts).
 */
export type PeerId = ChosenId | "headrace-frame" | "headrace-baseline" | "c-udp" | "node-dgram";
/** Without headrace under other settings. */
export const RIVALS: readonly ChosenId[] = ["c", "go", "node-net"];
/** What headrace's protection costs: the same with what can be off off, and with all of it on; what traces cost; and a change. */
export const VARIANTS: readonly PeerId[] = ["headrace-off", "headrace-all", "headrace-traced", "headrace-baseline"];

/**
 * What is asked of a peer. `line-flush10` is Go's way to answer a flood; the others have one way for all lines.
 * `tls-line`: lines over TLS.
 */
export type Duty = "line" | "frame" | "rpc" | "line-flush10" | "tls-line" | "datagram";

const SERVICES: Readonly<Record<Exclude<Duty, "tls-line">, string>> = {
  line: "echo-line",
  frame: "echo-frame",
  rpc: "echo-rpc",
  "line-flush10": "echo-line",
  datagram: "echo-udp",
};

export interface Peer {
  id: PeerId;
  name: string;
  /** What to start; pinning comes in front. */
  argv(duty: Duty): readonly string[];
  /** Over the harness's own environment, which has lost every HEADRACE_* and NODE_OPTIONS. */
  env: Readonly<Record<string, string>>;
  /** Holds garbage that NODE_OPTIONS=--import peers/collect.mjs can collect. */
  runsNode: boolean;
}

/** A peer that cannot run here, and what would let it. */
export interface Absentee {
  id: PeerId;
  reason: string;
}

/** The one option of headrace that is not as shipped: its limit must be above what the suites open. */
export const HEADRACE_CONNECTIONS = 20_000;

export const ROOT: string = join(import.meta.dirname, "..", "..");
export const SOURCES: string = join(ROOT, "bench", "peers");
export const COLLECT_MODULE: string = join(SOURCES, "collect.mjs");
export const HEADRACE_MAIN: string = join(ROOT, "dist", "cli", "main.js");

function build(output: string, program: string, ...args: string[]): string {
  const binary = join(ROOT, "build", "bench", output);
  mkdirSync(join(ROOT, "build", "bench"), { recursive: true });
  execFileSync(
    program,
    args.map((arg) => (arg === "OUTPUT" ? binary : arg)),
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  return binary;
}

/** No deadline runs, nothing is shed, no mark is ever reached. */
const ALL_OFF = {
  HEADRACE_TIMEOUTS_FIRST_BYTE: "off",
  HEADRACE_TIMEOUTS_FRAME: "off",
  HEADRACE_TIMEOUTS_IDLE: "off",
  HEADRACE_TIMEOUTS_WRITE_STALL: "off",
  HEADRACE_TIMEOUTS_HANG: "off",
  HEADRACE_SHED_QUEUE_DELAY: "off",
  HEADRACE_SHED_LOOP_DELAY: "off",
  HEADRACE_LIMITS_HIGH_WATER: "1GiB",
  HEADRACE_LIMITS_BUFFERED: "1GiB",
  HEADRACE_LIMITS_BUFFER_MEMORY: "1024GiB",
};

/** Also what is off as shipped; the client's one address stays below the limits. */
const ALL_ON = {
  HEADRACE_LIMITS_CONNECTIONS_PER_ADDRESS: String(HEADRACE_CONNECTIONS),
  HEADRACE_LIMITS_CONNECT_RATE: "1000000",
  HEADRACE_LIMITS_CONNECT_BURST: "1000000",
  HEADRACE_ADMISSION_DENY: "192.0.2.0/24,2001:db8::/32",
  HEADRACE_TIMEOUTS_AGE: "1h",
  HEADRACE_TIMEOUTS_REQUEST: "10s",
  HEADRACE_SHED_MEMORY: "8GiB",
};

function headrace(
  id: PeerId = "headrace",
  name = "headrace",
  settings: Readonly<Record<string, string>> = {},
  program: string = HEADRACE_MAIN,
): Peer | Absentee {
  if (!existsSync(program)) return { id, reason: `${program} is missing: npm ci there` };
  return {
    id,
    name,
    argv: (duty) => [
      ...[process.execPath, program, "run"],
      ...(duty === "tls-line" ? ["--config", writeTlsConfig()] : [SERVICES[duty], "--listen", "127.0.0.1:0"]),
      ...["--workers", "1"],
    ],
    env: { HEADRACE_LIMITS_CONNECTIONS: String(HEADRACE_CONNECTIONS), ...settings },
    runsNode: true,
  };
}

/** Path of a compiled peer; undefined without a compiler. */
export function buildProgram(name: string): string | undefined {
  if (firstLine("cc", "--version") === undefined) return undefined;
  return build(`${name}-c`, "cc", "-std=c11", "-O2", "-o", "OUTPUT", join(SOURCES, `${name}.c`));
}

/** The C echo. */
export function buildEcho(): string | undefined {
  return buildProgram("echo");
}

function c(): Peer | Absentee {
  const binary = buildEcho();
  if (binary === undefined) return { id: "c", reason: "no C compiler (Debian: apt install build-essential)" };
  return { id: "c", name: "C epoll", argv: () => [binary, "0"], env: {}, runsNode: false };
}

function go(machine: Machine): Peer | Absentee {
  if (firstLine("go", "version") === undefined) {
    return { id: "go", reason: "Go is not installed (Debian: apt install golang-go)" };
  }
  const binary = build("echo-go", "go", "build", "-o", "OUTPUT", join(SOURCES, "echo.go"));
  // On one core more than one running thread only costs switches: Go would not choose it there either.
  const env = machine.pinning === undefined ? undefined : { GOMAXPROCS: "1" };
  const argv = (duty: Duty): string[] =>
    duty === "tls-line" ? [binary, "line", "0", ...identityFiles()] : [binary, duty, "0"];
  return { id: "go", name: "Go net", argv, env: env ?? {}, runsNode: false };
}

function nodeNet(): Peer {
  const script = join(SOURCES, "node-net.mjs");
  return {
    id: "node-net",
    name: "node:net",
    argv: (duty) => [
      ...[process.execPath, script, duty === "frame" ? "frame" : "line", "0"],
      ...(duty === "tls-line" ? identityFiles() : []),
    ],
    env: {},
    runsNode: true,
  };
}

/** One request in a hundred has a trace, which leaves by OTLP. */
async function traced(): Promise<Peer | Absentee> {
  const endpoint = await openCollector();
  const settings = { HEADRACE_TRACING_SAMPLE: "1%", HEADRACE_TRACING_ENDPOINT: endpoint };
  return headrace("headrace-traced", "headrace, 1 % traced", settings);
}

/** Compiles what must be. In the order asked for. `baseline`: folder of another checkout, which comes last. */
export async function preparePeers(
  ids: readonly ChosenId[],
  machine: Machine,
  baseline?: string,
): Promise<{ peers: Peer[]; absent: Absentee[] }> {
  const make = {
    headrace: () => headrace(),
    c,
    go: () => go(machine),
    "node-net": nodeNet,
    "headrace-off": () => headrace("headrace-off", "headrace, all off", ALL_OFF),
    "headrace-all": () => headrace("headrace-all", "headrace, all on", ALL_ON),
    "headrace-traced": traced,
  };
  const all = await Promise.all(ids.map((id) => make[id]()));
  if (baseline !== undefined) {
    const program = join(resolve(baseline), "dist", "cli", "main.js");
    all.push(headrace("headrace-baseline", "headrace, baseline", {}, program));
  }
  return {
    peers: all.filter((peer) => "argv" in peer),
    absent: all.filter((peer) => "reason" in peer),
  };
}
