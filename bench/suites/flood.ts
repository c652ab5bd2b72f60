/**
 * Five-byte lines on every connection, as fast as the window lets them through, nobody waiting for an answer: what
 * batching is worth. Go answers as a careful Go program does, with a bufio.Writer flushed every ten lines. The C peer
 * does not look for lines at all: its figure is the price of moving the bytes.
 */
import type { Bench, Load } from "../generator.ts";
import { type LoadSample, measureLoad } from "../measure.ts";
import type { Options } from "../options.ts";
import { type Peer, RIVALS, VARIANTS } from "../peers.ts";
import type { Column, Scenario } from "../scenario.ts";
import { figure } from "../table.ts";
import { CLIENT_SHARE, loadRemarks, SERVER_SHARE } from "./load-columns.ts";

const CONNECTIONS = [10_000];
const LINE_BYTES = 5;
/** Filling the buffers of 10,000 connections takes longer than other warm-ups. */
const FILL_SECONDS = 4;

const RATE: Column<LoadSample> = {
  title: "lines/s",
  of: (sample) => sample.perSecond,
  show: figure,
};

const PER_CPU_SECOND: Column<LoadSample> = {
  title: "lines per server CPU second",
  of: (sample) => sample.unitsPerServerCpuSecond,
  show: figure,
  spread: true,
};

export function floodScenarios(options: Options, peers: readonly Peer[], bench: Bench): Scenario<LoadSample>[] {
  const { seconds, warmupSeconds } = bench.window;
  const filling: Bench = { ...bench, window: { seconds, warmupSeconds: Math.max(warmupSeconds, FILL_SECONDS) } };
  return (options.connections ?? CONNECTIONS).map((connections): Scenario<LoadSample> => {
    const load: Load = { mode: "flood", codec: "line", sizeBytes: LINE_BYTES, connections };
    return {
      suite: "flood",
      title: `flood: lines of ${LINE_BYTES} bytes over ${connections} connections; Go flushes every 10`,
      connections,
      peers,
      against: [...RIVALS, ...VARIANTS],
      metric: PER_CPU_SECOND,
      columns: [RATE, PER_CPU_SECOND, SERVER_SHARE, CLIENT_SHARE],
      judged: true,
      measure: (peer) => measureLoad(peer, "line-flush10", load, filling),
      remarks: (samples) => loadRemarks(samples, bench.machine.clientCores),
    };
  });
}
