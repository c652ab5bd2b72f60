/**
 * `npm run bench -- overload`: what becomes of a server that is asked for more than it can do, once with shedding as
 * shipped and once without. Capacity is measured anew in each round, closed loop, with a server of its own.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseFlags, whole } from "../flags.ts";
import type { Machine } from "../machine.ts";
import { HEADRACE_MAIN, type Peer, ROOT } from "../peers.ts";
import { startServer } from "../server.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";
import { OpenClient, type Outcome, quantile } from "./client.ts";

export const OVERLOAD_USAGE = `npm run bench -- overload [options]

  requests at 0.5, 0.8, 1, 1.5, 2 and 3 times what the server can do, with shedding and without

  --runs N          rounds, of one server of each kind (5)
  --seconds N       measured at each rate (4)
  --connections N   (100)
  --rounds N        SHA-256 rounds of one request (600: about a millisecond)
  --quick           1 run of 2 s
  --json FILE       raw figures`;

/** Times capacity. The second one is what the others are compared with. */
const FACTORS = [0.5, 0.8, 1, 1.5, 2, 3] as const;
const REFERENCE = 0.8;
const WORST = 3;
/** Requests under way while the capacity is measured: more than enough for one thread. */
const UNDER_WAY = 32;
const WARMUP_MS = 1_000;
/** An overload is over when for a second hardly anything was refused. */
const CALM_MS = 1_500;
const GOODPUT = 0.9;
const P99_RATIO = 2;

const SERVICE = join(ROOT, "bench", "overload", "hash-service.mjs");
const INDEX = pathToFileURL(join(ROOT, "dist", "index.js")).href;

export interface OverloadOptions {
  runs: number;
  seconds: number;
  connections: number;
  rounds: number;
  jsonFile?: string;
}

const KINDS = ["with shedding", "without"] as const;
type Kind = (typeof KINDS)[number];

interface Point extends Omit<Outcome, "latencies"> {
  factor: number;
  capacity: number;
  p50: number;
  p99: number;
}

const SYNTAX = {
  runs: { type: "string" },
  seconds: { type: "string" },
  connections: { type: "string" },
  rounds: { type: "string" },
  quick: { type: "boolean" },
  json: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseOverload(args: readonly string[]): OverloadOptions | undefined {
  const values = parseFlags(args, SYNTAX);
  if (values.help) return undefined;
  return {
    runs: whole("runs", values.runs, values.quick ? 1 : 5),
    seconds: whole("seconds", values.seconds, values.quick ? 2 : 4),
    connections: whole("connections", values.connections, 100),
    rounds: whole("rounds", values.rounds, 600),
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}

/** Without: nothing is refused, whatever waits. */
const UNBOUNDED = {
  HEADRACE_SHED_QUEUE_DELAY: "off",
  HEADRACE_SHED_LOOP_DELAY: "off",
  HEADRACE_TASKS_QUEUE: "1000000",
  HEADRACE_LIMITS_IN_FLIGHT_PER_WORKER: "1000000",
  BENCH_SHEDDING: "off",
};

function subject(kind: Kind, rounds: number): Peer {
  return {
    id: "headrace",
    name: kind,
    argv: () => [process.execPath, HEADRACE_MAIN, "run", SERVICE, "--listen", "127.0.0.1:0", "--workers", "1"],
    env: { BENCH_INDEX: INDEX, BENCH_ROUNDS: String(rounds), ...(kind === "without" ? UNBOUNDED : {}) },
    runsNode: true,
  };
}

/** With a server of its own and its clients. */
async function against<T>(
  kind: Kind,
  { rounds, connections }: OverloadOptions,
  machine: Machine,
  use: (client: OpenClient) => Promise<T>,
): Promise<T> {
  const server = await startServer(subject(kind, rounds), "frame", machine);
  try {
    const client = await OpenClient.open(Number(server.address.split(":").at(-1)), connections);
    const result = await use(client);
    client.close();
    return result;
  } finally {
    await server.end();
  }
}

function load(capacity: number, forMs: number): (client: OpenClient) => Promise<Point[]> {
  return async (client) => {
    const points: Point[] = [];
    for (const factor of FACTORS) {
      await new Promise((resolve) => setTimeout(resolve, CALM_MS));
      const { latencies, ...outcome } = await client.offer(factor * capacity, WARMUP_MS, forMs);
      points.push({ ...outcome, factor, capacity, p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) });
      await client.empty();
    }
    return points;
  };
}

function median(values: readonly number[]): number {
  return spread(values)?.median ?? Number.NaN;
}

function percentOf(share: number): string {
  return `${Math.round(share * 100)}%`;
}

const goodput = (point: Point): number => point.done / point.seconds / point.capacity;

/** Of each round, how a point's p99 stands to that at REFERENCE in the same round. */
function p99Ratios(rounds: readonly Point[][], factor: number): number[] {
  return rounds.flatMap((points) => {
    const [at, reference] = [factor, REFERENCE].map((one) => points.find((point) => point.factor === one));
    return at && reference ? at.p99 / reference.p99 : [];
  });
}

function rows(kind: Kind, rounds: readonly Point[][]): string[][] {
  return FACTORS.map((factor) => {
    const points = rounds.flatMap((round) => round.filter((point) => point.factor === factor));
    const of = (pick: (point: Point) => number): number => median(points.map(pick));
    return [
      `${kind}, ${factor} ×`,
      figure(of(({ offered, seconds }) => offered / seconds)),
      figure(of(({ done, seconds }) => done / seconds)),
      percentOf(of(goodput)),
      figure(of(({ busy, seconds }) => busy / seconds)),
      figure(of(({ p50 }) => p50)),
      figure(of(({ p99 }) => p99)),
      figure(median(p99Ratios(rounds, factor))),
    ];
  });
}

export interface OverloadResult {
  text: string;
  /** Every reply was right, and nothing was left unanswered with shedding. */
  sound: boolean;
}

export async function measureOverload(
  options: OverloadOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<OverloadResult> {
  const results: Record<Kind, Point[][]> = { "with shedding": [], without: [] };
  for (let run = 0; run < options.runs; run++) {
    progress(`run ${run + 1} of ${options.runs}, capacity`);
    const forMs = options.seconds * 1_000;
    const capacity = await against("without", options, machine, (client) =>
      client.capacity(UNDER_WAY, WARMUP_MS, forMs),
    );
    for (const kind of run % 2 === 0 ? KINDS : KINDS.toReversed()) {
      progress(`run ${run + 1} of ${options.runs}, ${kind}`);
      results[kind].push(await against(kind, options, machine, load(capacity, forMs)));
    }
  }
  if (options.jsonFile !== undefined) writeFileSync(options.jsonFile, JSON.stringify({ machine, options, results }));
  const head = [`median of ${options.runs}`, "offered/s", "done/s", "of capacity", "busy/s", "p50 ms", "p99 ms"];
  const shed = results["with shedding"];
  const worst = shed.flatMap((round) => round.filter(({ factor }) => factor === WORST));
  const share = median(worst.map(goodput));
  const ratio = median(p99Ratios(shed, WORST));
  const all = shed.flat();
  const wrong = Object.values(results)
    .flat(2)
    .reduce((sum, point) => sum + point.wrong, 0);
  const unanswered = all.reduce((sum, point) => sum + point.unanswered, 0);
  const verdict = (reached: boolean): string => (reached ? "ok" : "miss");
  const text = [
    table(
      [...head, `p99 to ${REFERENCE} ×`],
      KINDS.flatMap((kind) => rows(kind, results[kind])),
    ),
    "",
    `capacity ${figure(median(all.map(({ capacity }) => capacity)))}/s; latency of what was done, from when it was due`,
    `at ${WORST} ×: done ${percentOf(share)} of capacity, to reach ≥ ${percentOf(GOODPUT)}: ${verdict(share >= GOODPUT)}`,
    `at ${WORST} ×: p99 ${figure(ratio)} × that at ${REFERENCE} ×, to reach ≤ ${P99_RATIO}: ${verdict(ratio <= P99_RATIO)}`,
    `${wrong} wrong replies; with shedding ${unanswered} without a reply`,
  ].join("\n");
  return { text, sound: wrong === 0 && unanswered === 0 };
}
