/**
 * `npm run bench -- gc`: what the size of V8's young generation does to a worker whose service makes objects for every
 * message: collections, the time they take, latency at one rate for all, memory. The sizes alternate; each run has a
 * fresh server.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseFlags, whole } from "../flags.ts";
import { type Load, loadFaults, startGenerator } from "../generator.ts";
import type { Machine } from "../machine.ts";
import { HEADRACE_MAIN, type Peer } from "../peers.ts";
import { startServer } from "../server.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";

export const GC_USAGE = `npm run bench -- gc [options]

  what v8.semiSpace does to a service that makes objects for every message

  --runs N          rounds (5)
  --rate N          messages a second, the same for all (4000)
  --connections N   (200)
  --seconds N       measured in each run, after 3 s of warm-up (15)
  --quick           1 run of 3 s`;

const SERVICE = join(import.meta.dirname, "..", "..", "..", "bench", "gc", "allocating-service.mjs");
const SIZES = [undefined, "16MiB", "32MiB", "64MiB"] as const;
const WARMUP_SECONDS = 3;
const MiB = 1024 ** 2;

export interface GcOptions {
  readonly runs: number;
  readonly rate: number;
  readonly connections: number;
  readonly seconds: number;
}

/** As the service counts them. */
interface Collections {
  readonly minor: number;
  readonly minorMs: number;
  readonly major: number;
  readonly majorMs: number;
  readonly worstMs: number;
}

interface Sample {
  readonly minorPerSecond: number;
  readonly majorPerSecond: number;
  /** Of the whole run, ms in each second. */
  readonly msPerSecond: number;
  readonly worstMs: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly memoryMiB: number;
  readonly faults: readonly string[];
}

const SYNTAX = {
  runs: { type: "string" },
  rate: { type: "string" },
  connections: { type: "string" },
  seconds: { type: "string" },
  quick: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseGc(args: readonly string[]): GcOptions | undefined {
  const values = parseFlags(args, SYNTAX);
  if (values.help) return undefined;
  return {
    runs: whole("runs", values.runs, values.quick ? 1 : 5),
    rate: whole("rate", values.rate, 4_000),
    connections: whole("connections", values.connections, 200),
    seconds: whole("seconds", values.seconds, values.quick ? 3 : 15),
  };
}

const nameOf = (size: string | undefined): string => size ?? "V8's own (16MiB)";

function serverOf(size: string | undefined): Peer {
  return {
    id: "headrace",
    name: nameOf(size),
    argv: () => [process.execPath, HEADRACE_MAIN, "run", SERVICE, "--listen", "127.0.0.1:0", "--workers", "1"],
    env: size === undefined ? {} : { HEADRACE_V8_SEMI_SPACE: size },
    runsNode: true,
  };
}

async function collections(address: string): Promise<Collections> {
  const socket = connect(Number(address.split(":").at(-1)), "127.0.0.1");
  socket.end("gc?\n");
  const [line] = (await once(createInterface(socket), "line")) as [string];
  return JSON.parse(line) as Collections;
}

/** The most that it ever had, bytes (proc(5): VmHWM). */
function peakMemory(pid: number): number {
  const [, kiB = "0"] = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
  return Number(kiB) * 1024;
}

async function measure(size: string | undefined, options: GcOptions, machine: Machine): Promise<Sample> {
  const { rate, connections, seconds } = options;
  const load: Load = { codec: "line", sizeBytes: 64, connections, mode: "closed", rate };
  const server = await startServer(serverOf(size), "line", machine);
  try {
    const begun = performance.now();
    const bench = { machine, window: { seconds, warmupSeconds: WARMUP_SECONDS } };
    const generator = await startGenerator(server.address, load, bench);
    const result = await generator.result.finally(generator.end);
    const lasted = (performance.now() - begun) / 1000;
    const { minor, minorMs, major, majorMs, worstMs } = await collections(server.address);
    return {
      minorPerSecond: minor / lasted,
      majorPerSecond: major / lasted,
      msPerSecond: (minorMs + majorMs) / lasted,
      worstMs,
      p50: result.latencyMs?.p50 ?? Number.NaN,
      p99: result.latencyMs?.p99 ?? Number.NaN,
      p999: result.latencyMs?.p999 ?? Number.NaN,
      memoryMiB: peakMemory(server.pids[1] ?? 0) / MiB,
      faults: [...loadFaults(result, load), ...(result.messages.unsent > 0 ? ["the client was too slow"] : [])],
    };
  } finally {
    await server.end();
  }
}

export async function measureGc(
  options: GcOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<{ text: string; sound: boolean }> {
  const samples = SIZES.map((): Sample[] => []);
  for (let run = 0; run < options.runs; run++) {
    for (const index of SIZES.keys()) {
      const at = (index + run) % SIZES.length;
      progress(`${nameOf(SIZES[at])}, run ${run + 1} of ${options.runs}`);
      samples[at]?.push(await measure(SIZES[at], options, machine));
    }
  }
  const rows = SIZES.map((size, index) => {
    const median = (pick: (sample: Sample) => number): string =>
      figure(spread((samples[index] ?? []).map(pick))?.median ?? Number.NaN);
    return [
      nameOf(size),
      median(({ minorPerSecond }) => minorPerSecond),
      median(({ majorPerSecond }) => majorPerSecond),
      median(({ msPerSecond }) => msPerSecond),
      median(({ worstMs }) => worstMs),
      median(({ p50 }) => p50),
      median(({ p99 }) => p99),
      median(({ p999 }) => p999),
      median(({ memoryMiB }) => memoryMiB),
    ];
  });
  const head = [
    "v8.semiSpace",
    "minor GC/s",
    "major GC/s",
    "GC ms/s",
    "longest ms",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "peak MiB",
  ];
  const { runs, rate, connections, seconds } = options;
  const how = `one worker, ${figure(rate)} messages a second over ${connections} connections, medians of ${runs} runs of ${seconds} s`;
  const faults = samples.flat().flatMap((sample) => sample.faults);
  const text = [`## gc: ${how}`, "", table(head, rows), ...faults.map((fault) => `FAULT ${fault}`)].join("\n");
  return { text, sound: faults.length === 0 };
}
