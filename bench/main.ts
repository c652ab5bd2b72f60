/**
 * headrace beside plain C, Go net and node:net, in one run on one machine: `npm run bench`.
 *
 * Reading order: scenario.ts (how peers alternate), measure.ts (one run), suites/ (the workloads), figures.ts (what is
 * promised), report.ts. peers.ts and server.ts start the servers, generator.ts the load, process/ reads /proc.
 * handover/ is a comparison of another kind: what clients see while a server changes. reject/ is about headrace alone,
 * and overload/ compares it with itself: asked for more than it can do, with shedding and without. client/ is about its
 * clients: calls through their pool, and with a connection each. udp/ is about datagrams, gc/ about the
 * collector of a service that makes many objects. soak/ leaves a server under all of it at once, for as long as one
 * likes.
 *
 * Exit codes: 0 all runs were sound (whatever the verdicts), 1 some were not, 2 usage.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CLIENT_USAGE, measureClient, parseClientBench } from "./client/client.ts";
import type { SuiteName } from "./figures.ts";
import { GC_USAGE, measureGc, parseGc } from "./gc/gc.ts";
import { type Bench, loadArguments } from "./generator.ts";
import { HANDOVER_USAGE, type HandoverSuite, parseHandover } from "./handover/options.ts";
import { runSuite } from "./handover/suite.ts";
import { type Machine, onCores, pinSelf, readMachine } from "./machine.ts";
import { type Options, parseOptions, USAGE, UsageError } from "./options.ts";
import { measureOverload, OVERLOAD_USAGE, parseOverload } from "./overload/overload.ts";
import { type Absentee, HEADRACE_CONNECTIONS, type Peer, preparePeers } from "./peers.ts";
import { measureReject, parseReject, REJECT_USAGE } from "./reject/reject.ts";
import { compare, describeFacts, describeOutcome } from "./report.ts";
import { runScenario, type Sample, type Scenario } from "./scenario.ts";
import { parseSoak, SOAK_USAGE } from "./soak/options.ts";
import { measureSoak } from "./soak/soak.ts";
import { churnScenarios } from "./suites/churn.ts";
import { echoScenarios } from "./suites/echo.ts";
import { floodScenarios } from "./suites/flood.ts";
import { idleObstacle, idleScenarios } from "./suites/idle.ts";
import { tlsIdleScenario, tlsObstacle, tlsScenarios } from "./suites/tls.ts";
import { measureUdp, parseUdp, UDP_USAGE } from "./udp/udp.ts";

/** Of a run, for starting, connecting and ending. */
const BESIDE_SECONDS = 2;

type Print = (text: string) => void;

const print: Print = (text) => process.stdout.write(`${text}\n`);
const progress: Print = (text) => process.stderr.write(`${text}\n`);

function headraceVersion(): string {
  const path = join(import.meta.dirname, "..", "..", "package.json");
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}

function describeCommands(peers: readonly Peer[], bench: Bench): [string, string][] {
  const load = { mode: "closed", codec: "line", sizeBytes: 64, connections: 100 } as const;
  const generator = bench.generator ?? ["headrace", "bench"];
  const client = [...generator, "HOST:PORT", ...loadArguments(load, bench.window, bench.machine)];
  return [
    ...peers.map((peer): [string, string] => {
      const env = Object.entries(peer.env).map(([name, value]) => `${name}=${value}`);
      return [peer.name, [...env, ...onCores(bench.machine, "server", peer.argv("line"))].join(" ")];
    }),
    ["load, e.g.", onCores(bench.machine, "client", client).join(" ")],
  ];
}

function introduce({ suites }: Options, peers: readonly Peer[], absent: readonly Absentee[], bench: Bench): void {
  const { seconds, warmupSeconds } = bench.window;
  print(`# headrace ${headraceVersion()} beside its peers, ${new Date().toISOString()}\n`);
  print(describeFacts(bench.machine.facts));
  print(`\nEach run: a fresh server, ${warmupSeconds} s of warm-up, ${seconds} s measured, every reply checked.`);
  print(`headrace as shipped, but for limits.connections, raised to ${HEADRACE_CONNECTIONS}.\n`);
  print(describeFacts(describeCommands(peers, bench)));
  for (const { id, reason } of absent) print(`\nMISSING ${id}: ${reason}`);
  const obstacle = suites.includes("idle") ? idleObstacle(bench) : undefined;
  if (obstacle !== undefined) print(`\nSKIPPED idle: ${obstacle}`);
  const noTls = suites.includes("tls") ? tlsObstacle() : undefined;
  if (noTls !== undefined) print(`\nSKIPPED tls: ${noTls}`);
  print("");
}

/** A scenario played: what to print, what to keep. */
interface Played {
  text: string;
  data: object;
  sound: boolean;
}
type Play = () => Promise<Played>;

function play<S extends Sample>(scenario: Scenario<S>, runs: number): Play {
  return async () => {
    progress(scenario.title);
    const outcome = await runScenario(scenario, runs, progress);
    const { suite, title, connections, metric } = scenario;
    const rows = outcome.rows.map(({ peer, samples }) => ({ peer: peer.id, samples }));
    return {
      text: describeOutcome(outcome, runs),
      data: {
        suite,
        title,
        connections,
        metric: metric.title,
        rows,
        comparisons: compare(outcome),
        faults: outcome.faults,
      },
      sound: outcome.faults.length === 0,
    };
  };
}

function playsOf(suite: SuiteName, options: Options, peers: readonly Peer[], bench: Bench): Play[] {
  const { runs } = options;
  switch (suite) {
    case "echo":
      return echoScenarios(options, peers, bench).map((scenario) => play(scenario, runs));
    case "idle":
      if (idleObstacle(bench) !== undefined) return [];
      return idleScenarios(peers, bench).map((scenario) => play(scenario, runs));
    case "churn":
      return churnScenarios(options, peers, bench).map((scenario) => play(scenario, runs));
    case "flood":
      return floodScenarios(options, peers, bench).map((scenario) => play(scenario, runs));
    case "tls":
      if (tlsObstacle() !== undefined) return [];
      return [
        ...tlsScenarios(options, peers, bench).map((scenario) => play(scenario, runs)),
        play(tlsIdleScenario(peers, bench), runs),
      ];
    case "udp":
      // A comparison of its own: runUdp.
      return [];
  }
}

async function compareAll(options: Options): Promise<boolean> {
  const machine = readMachine();
  pinSelf(machine);
  const { seconds, warmupSeconds, generator, jsonFile } = options;
  const bench: Bench = { machine, window: { seconds, warmupSeconds }, generator };
  const { peers, absent } = await preparePeers(options.peers, machine, options.baseline);
  introduce(options, peers, absent, bench);
  const data: object[] = [];
  let sound = true;
  const plays = options.suites.flatMap((suite) => playsOf(suite, options, peers, bench));
  const runSeconds = seconds + warmupSeconds + BESIDE_SECONDS;
  progress(`About ${Math.ceil((plays.length * peers.length * options.runs * runSeconds) / 60)} minutes.`);
  for (const next of plays) {
    const played = await next();
    print(played.text);
    sound &&= played.sound;
    data.push(played.data);
    // After each scenario, so that an interrupted comparison keeps what it has.
    if (jsonFile !== undefined) writeFileSync(jsonFile, JSON.stringify({ machine, options, absent, scenarios: data }));
  }
  return sound;
}

/** A comparison that has options of its own. */
interface OwnSuite<Settings> {
  readonly usage: string;
  /** Undefined when help was asked for. Throws UsageError. */
  parse(args: readonly string[]): Settings | undefined;
  measure(options: Settings, machine: Machine, progress: Print): Promise<Measured>;
}

interface Measured {
  readonly text: string;
  /** Raw figures. */
  readonly data?: object;
  readonly sound: boolean;
}

function own<Settings>(suite: OwnSuite<Settings>): OwnSuite<unknown> {
  return suite as OwnSuite<unknown>;
}

const handover = (suite: HandoverSuite): OwnSuite<unknown> =>
  own({ usage: HANDOVER_USAGE, parse: (args) => parseHandover(suite, args), measure: runSuite });

const OWN_SUITES: Readonly<Record<string, OwnSuite<unknown>>> = {
  handover: handover("handover"),
  migrate: handover("migrate"),
  respawn: handover("respawn"),
  reject: own({ usage: REJECT_USAGE, parse: parseReject, measure: measureReject }),
  overload: own({ usage: OVERLOAD_USAGE, parse: parseOverload, measure: measureOverload }),
  gc: own({ usage: GC_USAGE, parse: parseGc, measure: measureGc }),
  client: own({ usage: CLIENT_USAGE, parse: parseClientBench, measure: measureClient }),
  udp: own({ usage: UDP_USAGE, parse: parseUdp, measure: measureUdp }),
  soak: own({ usage: SOAK_USAGE, parse: parseSoak, measure: measureSoak }),
};

async function runOwn(name: string, suite: OwnSuite<unknown>, args: readonly string[]): Promise<boolean> {
  const options = suite.parse(args) as { readonly jsonFile?: string } | undefined;
  if (options === undefined) {
    print(suite.usage);
    return true;
  }
  const machine = readMachine();
  pinSelf(machine);
  print(`# headrace ${headraceVersion()}, ${name}, ${new Date().toISOString()}\n`);
  print(`${describeFacts(machine.facts)}\n`);
  const { text, data, sound } = await suite.measure(options, machine, progress);
  print(text);
  if (options.jsonFile !== undefined) writeFileSync(options.jsonFile, JSON.stringify({ machine, ...data }));
  return sound;
}

const [word = "", ...others] = process.argv.slice(2);
const suite = Object.hasOwn(OWN_SUITES, word) ? OWN_SUITES[word] : undefined;
try {
  if (suite) {
    process.exitCode = (await runOwn(word, suite, others)) ? 0 : 1;
  } else {
    const options = parseOptions(process.argv.slice(2));
    if (options === undefined) print(USAGE);
    else process.exitCode = (await compareAll(options)) ? 0 : 1;
  }
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  progress(`${error.message}\n\n${suite?.usage ?? USAGE}`);
  process.exitCode = 2;
}
