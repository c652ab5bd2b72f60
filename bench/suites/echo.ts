/**
 * One message there, the same bytes back, on every connection at once: the cost of a message. Closed loop (a connection
 * sends when it has its answer) unless a rate is given; the latencies of a closed loop at full load only say how many
 * connections share a core, those of an open loop what a client would feel.
 */
import type { Bench, Load } from "../generator.ts";
import { type LoadSample, measureLoad } from "../measure.ts";
import type { Options } from "../options.ts";
import { type Peer, RIVALS, VARIANTS } from "../peers.ts";
import type { Column, Scenario } from "../scenario.ts";
import { figure } from "../table.ts";
import { CLIENT_SHARE, LATENCY, loadRemarks, SERVER_SHARE } from "./load-columns.ts";

const CONNECTIONS = [100, 1_000, 10_000];
/** The figures to reach are for this size. */
const JUDGED_BYTES = 64;

const RATE: Column<LoadSample> = {
  title: "messages/s",
  of: (sample) => sample.perSecond,
  show: figure,
  spread: true,
};

const CPU: Column<LoadSample> = {
  title: "server CPU µs/message",
  of: (sample) => sample.serverMicrosPerUnit,
  show: (value) => value.toFixed(2),
  spread: true,
};

function describe(load: Load, clientLoop: string): string {
  const depth = load.pipeline === 1 ? "" : `, ${load.pipeline} in flight on each`;
  return `echo: ${load.codec}, ${load.sizeBytes} bytes, ${load.connections} connections${depth}, ${clientLoop}`;
}

export function echoScenarios(options: Options, peers: readonly Peer[], bench: Bench): Scenario<LoadSample>[] {
  const { codecs, sizeBytes, pipeline, rate, connections = CONNECTIONS } = options;
  return codecs.flatMap((codec) =>
    connections.map((count): Scenario<LoadSample> => {
      const load: Load = { mode: "closed", codec, sizeBytes, connections: count, pipeline };
      if (rate !== undefined) load.rate = rate;
      return {
        suite: "echo",
        title: describe(load, rate === undefined ? "closed loop" : `open loop at ${figure(rate)}/s`),
        connections: count,
        peers,
        against: [...RIVALS, ...VARIANTS],
        metric: CPU,
        columns: [RATE, CPU, ...LATENCY, SERVER_SHARE, CLIENT_SHARE],
        judged: sizeBytes === JUDGED_BYTES && pipeline === 1 && rate === undefined,
        measure: (peer) => measureLoad(peer, codec, load, bench),
        remarks: (samples) => loadRemarks(samples, bench.machine.clientCores),
      };
    }),
  );
}
