/**
 * `npm run bench -- udp`: what a datagram costs beside node:dgram and a C loop of recvmmsg and sendmmsg; what arrives of
 * twice what a server can do; how sources spread over workers; what a reload loses.
 */
import { writeFileSync } from "node:fs";
import { parseFlags } from "../flags.ts";
import type { Bench, Load } from "../generator.ts";
import { startGenerator } from "../generator.ts";
import { startHeadrace } from "../handover/headrace.ts";
import type { Machine } from "../machine.ts";
import { type LoadSample, measureLoad } from "../measure.ts";
import { UsageError } from "../options.ts";
import type { Peer } from "../peers.ts";
import { describeOutcome } from "../report.ts";
import { type Column, runScenario, type Scenario } from "../scenario.ts";
import { spread } from "../statistics.ts";
import { CLIENT_SHARE, LATENCY, loadRemarks, SERVER_SHARE } from "../suites/load-columns.ts";
import { figure, percent, table } from "../table.ts";
import { echoPeers, workPeers } from "./peers.ts";

export const UDP_USAGE = `npm run bench -- udp [options]

  CPU per datagram beside node:dgram and C; loss at twice the capacity; spread over workers; reload under load

  --runs N          rounds; every peer runs once in each (5)
  --seconds N       measured in each run (4)
  --flows N         sockets of the client (32)
  --pipeline N      datagrams in flight of each (8)
  --size N          bytes of a datagram (64)
  --rate N          datagrams a second while workers are replaced (5000)
  --quick           3 runs of 1 s: shows that it works, proves nothing
  --json FILE       raw data`;

export interface UdpOptions {
  runs: number;
  seconds: number;
  flows: number;
  pipeline: number;
  sizeBytes: number;
  rate: number;
  jsonFile?: string;
}

type Progress = (text: string) => void;

const SYNTAX = {
  runs: { type: "string" },
  seconds: { type: "string" },
  flows: { type: "string" },
  pipeline: { type: "string" },
  size: { type: "string" },
  rate: { type: "string" },
  quick: { type: "boolean" },
  json: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** The figures are for this. */
const JUDGED_BYTES = 64;
const WARMUP_SECONDS = 1;
/** SHA-256 of each datagram where more is asked than can be done: the client can send twice that. */
const WORK_ROUNDS = 12;
const RELOADS = 3;
const SPREAD_FLOWS = 64;

function number(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new UsageError(`--${name}: ${text} is not a number above 0`);
  return value;
}

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseUdp(args: readonly string[]): UdpOptions | undefined {
  const values = parseFlags(args, SYNTAX);
  if (values.help) return undefined;
  const quick = values.quick ?? false;
  return {
    runs: number("runs", values.runs ?? (quick ? "3" : "5")),
    seconds: number("seconds", values.seconds ?? (quick ? "1" : "4")),
    flows: number("flows", values.flows ?? "32"),
    pipeline: number("pipeline", values.pipeline ?? "8"),
    sizeBytes: number("size", values.size ?? String(JUDGED_BYTES)),
    rate: number("rate", values.rate ?? "5000"),
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}

const RATE: Column<LoadSample> = {
  title: "datagrams/s",
  of: (sample) => sample.perSecond,
  show: figure,
  spread: true,
};

const CPU: Column<LoadSample> = {
  title: "server CPU µs/datagram",
  of: (sample) => sample.serverMicrosPerUnit,
  show: (value) => value.toFixed(2),
  spread: true,
};

function costScenario({ flows, pipeline, sizeBytes }: UdpOptions, bench: Bench): Scenario<LoadSample> {
  const load: Load = { mode: "closed", codec: "datagram", sizeBytes, connections: flows, pipeline };
  return {
    suite: "udp",
    title: `udp: ${sizeBytes} bytes, ${flows} flows, ${pipeline} in flight of each, closed loop`,
    connections: flows,
    peers: echoPeers(),
    against: ["c-udp", "node-dgram"],
    metric: CPU,
    columns: [RATE, CPU, ...LATENCY, SERVER_SHARE, CLIENT_SHARE],
    judged: sizeBytes === JUDGED_BYTES,
    measure: (peer) => measureLoad(peer, "datagram", load, bench),
    remarks: (samples) => loadRemarks(samples, bench.machine.clientCores),
  };
}

interface Overload {
  peer: string;
  capacity: number;
  sent: number;
  answered: number;
  p50: number;
}

/** Capacity in a closed loop, then twice that, with a fresh server each. */
async function overloadOf(peer: Peer, { flows, sizeBytes }: UdpOptions, bench: Bench): Promise<Overload> {
  const base: Load = { mode: "closed", codec: "datagram", sizeBytes, connections: flows, pipeline: 8 };
  const { perSecond: capacity } = await measureLoad(peer, "datagram", base, bench);
  const rate = Math.round(2 * capacity);
  const { result } = await measureLoad(peer, "datagram", { ...base, pipeline: 1, rate }, bench);
  const { messages, seconds, perSecond, latencyMs } = result;
  return { peer: peer.name, capacity, sent: messages.sent / seconds, answered: perSecond, p50: latencyMs?.p50 ?? 0 };
}

async function overload(
  options: UdpOptions,
  bench: Bench,
  progress: Progress,
): Promise<{ text: string; data: object }> {
  const peers = workPeers(WORK_ROUNDS);
  const samples: Overload[] = [];
  for (let round = 0; round < options.runs; round++) {
    for (const peer of round % 2 === 0 ? peers : peers.toReversed()) {
      progress(`  twice the capacity, round ${round + 1} of ${options.runs}, ${peer.name}`);
      samples.push(await overloadOf(peer, options, bench));
    }
  }
  const median = (values: readonly number[]): number => spread(values)?.median ?? Number.NaN;
  const rows = peers.map(({ name }) => {
    const own = samples.filter(({ peer }) => peer === name);
    const of = (pick: (sample: Overload) => number): number => median(own.map(pick));
    return [
      name,
      figure(of(({ capacity }) => capacity)),
      figure(of(({ sent, capacity }) => sent / capacity)),
      percent(of(({ answered, capacity }) => answered / capacity)),
      percent(of(({ answered, sent }) => 1 - answered / sent)),
      figure(of(({ p50 }) => p50)),
    ];
  });
  const head = ["", "capacity/s", "asked for ×", "goodput of capacity", "lost", "p50 ms"];
  const text = `## udp: twice what it can do (${WORK_ROUNDS} SHA-256 for each datagram)\n\n${table(head, rows)}\n`;
  return { text, data: { overload: samples } };
}

interface Changed {
  sent: number;
  lost: number;
  shares: number[];
}

/** Two workers, replaced again and again while datagrams come at a moderate rate. */
async function reloads({ rate, sizeBytes }: UdpOptions, machine: Machine, progress: Progress): Promise<Changed> {
  progress("  reload under load");
  const listeners = [{ name: "main", address: "udp://127.0.0.1:0", service: "echo-udp" }];
  const subject = await startHeadrace({ machine, workers: 2, quick: true, config: { listeners } });
  try {
    const seconds = 4 * RELOADS;
    const load: Load = { mode: "closed", codec: "datagram", sizeBytes, connections: SPREAD_FLOWS, pipeline: 1, rate };
    const bench: Bench = { machine, window: { seconds, warmupSeconds: 0.5 } };
    const generator = await startGenerator(`udp://127.0.0.1:${subject.port}`, load, bench);
    const [reload] = subject.changes;
    let shares: number[] = [];
    for (let nth = 0; nth < RELOADS; nth++) {
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      if (nth === 0) shares = (await subject.status()).workers.map(({ requests }) => requests);
      await reload?.run();
    }
    const { messages } = await generator.result.finally(generator.end);
    return { sent: messages.sent, lost: messages.outstanding, shares };
  } finally {
    await subject.end();
  }
}

/** Plain text, and whether every run was sound. */
export async function measureUdp(
  options: UdpOptions,
  machine: Machine,
  progress: Progress,
): Promise<{ text: string; sound: boolean }> {
  const bench: Bench = { machine, window: { seconds: options.seconds, warmupSeconds: WARMUP_SECONDS } };
  const outcome = await runScenario(costScenario(options, bench), options.runs, progress);
  const over = await overload(options, bench, progress);
  const changed = await reloads(options, machine, progress);
  const all = changed.shares.reduce((sum, count) => sum + count, 0);
  const shares = changed.shares.map((count) => percent(count / all)).join(", ");
  const text = [
    describeOutcome(outcome, options.runs),
    over.text,
    `## udp: two workers, all replaced ${RELOADS} times at ${figure(options.rate)} datagrams/s`,
    `spread of ${SPREAD_FLOWS} sources: ${shares}`,
    `${figure(changed.sent)} sent in the window, ${changed.lost} lost`,
    "",
  ].join("\n\n");
  const { rows, faults } = outcome;
  const raw = {
    machine,
    options,
    cost: rows.map(({ peer, samples }) => ({ peer: peer.id, samples })),
    ...over.data,
    changed,
  };
  if (options.jsonFile !== undefined) writeFileSync(options.jsonFile, JSON.stringify(raw));
  return { text, sound: faults.length === 0 && changed.lost === 0 };
}
