/**
 * `npm run bench -- client`: what calls cost through the pool and with a connection each: connections opened, TIME_WAIT
 * before and after (by ss), latency, CPU time of the caller. The ways alternate; each has a server of its own.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { parseFlags, whole } from "../flags.ts";
import type { Machine } from "../machine.ts";
import { HEADRACE_MAIN, type Peer } from "../peers.ts";
import { startServer } from "../server.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";
import { WAYS, type Way } from "./ways.ts";

export const CLIENT_USAGE = `npm run bench -- client [options]

  calls through the pool of a client, and with a connection for each

  --runs N      rounds (5)
  --calls N     of each way with a pool (100000); a tenth of it where each call has a connection
  --callers N   side by side (100)
  --size N      bytes of a payload (64)
  --quick       1 run of 10000
  --json FILE   raw figures`;

export interface ClientBenchOptions {
  readonly runs: number;
  readonly calls: number;
  readonly callers: number;
  readonly sizeBytes: number;
  readonly jsonFile?: string;
}

interface Sample {
  readonly way: string;
  readonly calls: number;
  readonly opened: number;
  readonly timeWaitBefore: number;
  readonly timeWaitAfter: number;
  readonly perSecond: number;
  readonly cpuMicros: number;
  readonly p50: number;
  readonly p99: number;
  readonly wrong: number;
  readonly failed: number;
}

const SYNTAX = {
  runs: { type: "string" },
  calls: { type: "string" },
  callers: { type: "string" },
  size: { type: "string" },
  quick: { type: "boolean" },
  json: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

const COSTLY_SHARE = 0.1;
/** Before the measured calls of a run. */
const WARMUP_SHARE = 0.05;

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseClientBench(args: readonly string[]): ClientBenchOptions | undefined {
  const values = parseFlags(args, SYNTAX);
  if (values.help) return undefined;
  return {
    runs: whole("runs", values.runs, values.quick ? 1 : 5),
    calls: whole("calls", values.calls, values.quick ? 10_000 : 100_000),
    callers: whole("callers", values.callers, 100),
    sizeBytes: Math.max(8, whole("size", values.size, 64)),
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}

function serverOf({ speaks }: Way): Peer {
  const service = speaks === "rpc" ? "echo-rpc" : "echo-frame";
  return {
    id: "headrace",
    name: speaks,
    argv: () => [process.execPath, HEADRACE_MAIN, "run", service, "--listen", "127.0.0.1:0", "--workers", "1"],
    env: {},
    runsNode: true,
  };
}

/** Either end of the server's port. */
function timeWaits(port: string): number {
  const args = ["-Htan", "state", "time-wait", `( sport = :${port} or dport = :${port} )`];
  return execFileSync("ss", args, { encoding: "utf8", maxBuffer: 1 << 28 })
    .split("\n")
    .filter(Boolean).length;
}

async function measure(way: Way, { calls, callers, sizeBytes }: ClientBenchOptions, machine: Machine): Promise<Sample> {
  const server = await startServer(serverOf(way), "frame", machine);
  const port = server.address.split(":").at(-1) ?? "";
  const asking = way.open(server.address);
  const most = way.costly ? Math.ceil(calls * COSTLY_SHARE) : calls;
  const latencies = new Float64Array(most);
  let [next, wrong, failed] = [0, 0, 0];
  const ask = async (until: number): Promise<void> => {
    const payload = Buffer.alloc(sizeBytes);
    while (next < until) {
      const number = next++;
      payload.writeUInt32BE(number);
      const begun = performance.now();
      try {
        if (!(await asking.call(payload)).equals(payload)) wrong += 1;
      } catch {
        failed += 1;
      }
      latencies[number] = performance.now() - begun;
    }
  };
  const askAll = (until: number): Promise<unknown> => Promise.all(Array.from({ length: callers }, () => ask(until)));
  try {
    const timeWaitBefore = timeWaits(port);
    await askAll(Math.ceil(most * WARMUP_SHARE));
    const [from, begun, cpu] = [next, performance.now(), process.cpuUsage()];
    await askAll(most);
    const seconds = (performance.now() - begun) / 1_000;
    const { user, system } = process.cpuUsage(cpu);
    const sorted = latencies.subarray(from).toSorted();
    const quantile = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN;
    const { opened } = asking;
    const timeWaitAfter = timeWaits(port);
    await asking.close();
    return {
      way: way.name,
      calls: most,
      opened,
      timeWaitBefore,
      timeWaitAfter,
      perSecond: (most - from) / seconds,
      cpuMicros: (user + system) / (most - from),
      p50: quantile(0.5),
      p99: quantile(0.99),
      wrong,
      failed,
    };
  } finally {
    await server.end();
  }
}

function row(samples: readonly Sample[], { name }: Way): string[] {
  const own = samples.filter(({ way }) => way === name);
  const of = (pick: (sample: Sample) => number): string => figure(spread(own.map(pick))?.median ?? Number.NaN);
  const whole = (pick: (sample: Sample) => number): string => String(Math.max(...own.map(pick)));
  return [
    name,
    whole(({ calls }) => calls),
    whole(({ opened }) => opened),
    whole(({ timeWaitBefore }) => timeWaitBefore),
    whole(({ timeWaitAfter }) => timeWaitAfter),
    of(({ perSecond }) => perSecond),
    of(({ cpuMicros }) => cpuMicros),
    of(({ p50 }) => p50),
    of(({ p99 }) => p99),
  ];
}

export interface ClientBenchResult {
  readonly text: string;
  /** Every call was answered, and rightly. */
  readonly sound: boolean;
}

export async function measureClient(
  options: ClientBenchOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<ClientBenchResult> {
  const samples: Sample[] = [];
  for (let run = 0; run < options.runs; run++) {
    for (const way of run % 2 === 0 ? WAYS : WAYS.toReversed()) {
      progress(`run ${run + 1} of ${options.runs}, ${way.name}`);
      samples.push(await measure(way, options, machine));
    }
  }
  if (options.jsonFile !== undefined) writeFileSync(options.jsonFile, JSON.stringify({ machine, options, samples }));
  const head = ["calls", "opened", "TIME_WAIT before", "after", "calls/s", "CPU µs", "p50 ms", "p99 ms"];
  const rows = WAYS.map((way) => row(samples, way));
  const sum = (pick: (sample: Sample) => number): number => samples.reduce((total, sample) => total + pick(sample), 0);
  const [wrong, failed] = [sum((sample) => sample.wrong), sum((sample) => sample.failed)];
  const text = [
    table([`median of ${options.runs} (counts: the most)`, ...head], rows),
    "",
    `${options.callers} callers, ${options.sizeBytes} bytes; CPU of the caller; ${failed} calls failed, ${wrong} wrong replies`,
  ].join("\n");
  return { text, sound: wrong === 0 && failed === 0 };
}
