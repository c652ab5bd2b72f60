/**
 * Connections that come, send one line, take the answer and go: what accepting and closing costs. The clients close
 * first, so TIME_WAIT stays on their side, and use four source addresses, so that no port is waited for.
 */
import type { Bench, Load } from "../generator.ts";
import { type LoadSample, measureLoad } from "../measure.ts";
import type { Options } from "../options.ts";
import { type Peer, RIVALS, VARIANTS } from "../peers.ts";
import type { Column, Scenario } from "../scenario.ts";
import { figure } from "../table.ts";
import { CLIENT_SHARE, LATENCY, loadRemarks, SERVER_SHARE } from "./load-columns.ts";

const CONNECTIONS = [100];

const RATE: Column<LoadSample> = {
  title: "connections/s",
  of: (sample) => sample.perSecond,
  show: figure,
};

const PER_CPU_SECOND: Column<LoadSample> = {
  title: "connections per server CPU second",
  of: (sample) => sample.unitsPerServerCpuSecond,
  show: figure,
  spread: true,
};

export function churnScenarios(options: Options, peers: readonly Peer[], bench: Bench): Scenario<LoadSample>[] {
  return (options.connections ?? CONNECTIONS).map((connections): Scenario<LoadSample> => {
    const load: Load = { mode: "churn", codec: "line", sizeBytes: options.sizeBytes, connections };
    return {
      suite: "churn",
      title: `churn: connect, one line of ${load.sizeBytes} bytes, close; ${connections} at a time`,
      connections,
      peers,
      against: [...RIVALS, ...VARIANTS],
      metric: PER_CPU_SECOND,
      columns: [RATE, PER_CPU_SECOND, ...LATENCY, SERVER_SHARE, CLIENT_SHARE],
      judged: true,
      measure: (peer) => measureLoad(peer, "line", load, bench),
      remarks: (samples) => loadRemarks(samples, bench.machine.clientCores),
    };
  });
}
