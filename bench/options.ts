/**
 * The command line: which suites, how often, how long. A mistake is a UsageError, which main.ts answers with exit 2.
 * What a suite does when an option is absent is the suite's own affair; only what all share has its default here.
 */
import { parseArgs } from "node:util";
import type { SuiteName } from "./figures.ts";
import { type ChosenId, HEADRACE_CONNECTIONS, PEER_IDS, RIVALS } from "./peers.ts";

export type Codec = "line" | "frame" | "rpc";

export interface Options {
  suites: readonly SuiteName[];
  peers: readonly ChosenId[];
  runs: number;
  seconds: number;
  warmupSeconds: number;
  /** Absent: each suite's own. */
  connections?: readonly number[];
  codecs: readonly Codec[];
  /** Bytes of payload in the echo suite, the newline of a line included. */
  sizeBytes: number;
  /** Messages in flight per connection in the echo suite. */
  pipeline: number;
  /** Open loop in the echo suite, messages/s over all connections. Absent: closed loop. */
  rate?: number;
  /** Folder of another checkout, built, to compare with. */
  baseline?: string;
  jsonFile?: string;
  /** Replaces `node dist/cli/main.js bench`; it must speak the same contract. */
  generator?: readonly string[];
}

export class UsageError extends Error {}

export const USAGE = `npm run bench -- [echo] [idle] [churn] [flood] [tls] [options]

  echo     one message there and back per connection: rate, server CPU per message, latency
  idle     memory per idle connection
  churn    connect, one message, close: connections per server CPU second
  flood    5-byte lines without waiting for answers: lines echoed per server CPU second
  tls      over TLS: server CPU per message, handshakes per server CPU second, memory per idle connection
  (none)   all but tls

  client: calls through a client's pool; "npm run bench -- client --help"
  gc: what v8.semiSpace does; "npm run bench -- gc --help"
  overload: goodput and latency past capacity; "npm run bench -- overload --help"
  udp: datagrams beside C and node:dgram; "npm run bench -- udp --help"
  handover, migrate, respawn: what clients see while a server changes; "npm run bench -- handover --help"
  soak: everything at once, for as long as you like; "npm run bench -- soak --help"
  reject                 what it costs to turn a newcomer away; "npm run bench -- reject --help"

  --runs N               rounds; every peer runs once in each (5)
  --seconds N            measured in each run (5)
  --warmup N             seconds before that (1)
  --connections N,N      echo: 100,1000,10000; churn: 100; flood: 10000; tls: 100,1000
  --codec line,frame     echo: both; rpc: headrace alone, beside its own plain frames
  --peers A,B            of ${PEER_IDS.join(", ")} (the first four)
  --baseline DIR         another checkout of headrace, built, takes part too: what a change costs
  --size N               echo: bytes of payload (64)
  --pipeline N           echo: messages in flight per connection (1)
  --rate N               echo: open loop at N messages/s in all, timed from the intended send
  --quick                3 runs of 1 s, lines only: shows that it works, proves nothing
  --json FILE            raw data of every run
  --generator "COMMAND"  instead of headrace bench, same contract`;

const SUITES: readonly SuiteName[] = ["echo", "idle", "churn", "flood", "tls"];
const USUAL: readonly SuiteName[] = SUITES.filter((suite) => suite !== "tls");
const CODECS: readonly Codec[] = ["line", "frame", "rpc"];

const SYNTAX = {
  runs: { type: "string" },
  seconds: { type: "string" },
  warmup: { type: "string" },
  connections: { type: "string" },
  codec: { type: "string" },
  peers: { type: "string" },
  baseline: { type: "string" },
  size: { type: "string" },
  pipeline: { type: "string" },
  rate: { type: "string" },
  quick: { type: "boolean" },
  json: { type: "string" },
  generator: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

function number(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!(value >= least)) throw new UsageError(`${name}: ${text} is not a number of at least ${least}`);
  return value;
}

function integer(name: string, text: string): number {
  const value = number(name, text, 1);
  if (!Number.isInteger(value)) throw new UsageError(`${name}: ${text} is not a whole number`);
  return value;
}

/** No more than headrace is told to admit. */
function connectionCount(text: string): number {
  const count = integer("--connections", text);
  if (count <= HEADRACE_CONNECTIONS) return count;
  throw new UsageError(
    `--connections: ${text} is more than ${HEADRACE_CONNECTIONS}, the limit that headrace runs with`,
  );
}

function members<T extends string>(name: string, given: readonly string[], allowed: readonly T[]): T[] {
  return given.map((word) => {
    const member = allowed.find((candidate) => candidate === word);
    if (member === undefined) throw new UsageError(`${name}: "${word}" is none of ${allowed.join(", ")}`);
    return member;
  });
}

function parseWords(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: SYNTAX, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseOptions(args: readonly string[]): Options | undefined {
  const { values, positionals } = parseWords(args);
  if (values.help) return undefined;
  const quick = values.quick ?? false;
  const suites = members("suite", positionals, SUITES);
  const options: Options = {
    suites: suites.length === 0 ? USUAL : suites,
    peers: values.peers === undefined ? ["headrace", ...RIVALS] : members("--peers", values.peers.split(","), PEER_IDS),
    runs: integer("--runs", values.runs ?? (quick ? "3" : "5")),
    seconds: number("--seconds", values.seconds ?? (quick ? "1" : "5"), 0.1),
    warmupSeconds: number("--warmup", values.warmup ?? (quick ? "0.5" : "1"), 0),
    codecs: members("--codec", (values.codec ?? (quick ? "line" : "line,frame")).split(","), CODECS),
    sizeBytes: integer("--size", values.size ?? "64"),
    pipeline: integer("--pipeline", values.pipeline ?? "1"),
  };
  if (values.connections !== undefined) {
    options.connections = values.connections.split(",").map(connectionCount);
  }
  if (values.rate !== undefined) options.rate = number("--rate", values.rate, 1);
  if (values.baseline !== undefined) options.baseline = values.baseline;
  if (values.json !== undefined) options.jsonFile = values.json;
  if (values.generator !== undefined) options.generator = values.generator.split(/\s+/).filter((word) => word !== "");
  return options;
}
