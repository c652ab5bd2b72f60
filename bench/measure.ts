/**
 * One load run against one fresh server: what CPU the server used in the window in which the load generator counted.
 * A run in which anything went wrong, on either side, carries its faults and is left out of every figure.
 */
import { type Bench, type Load, type LoadResult, loadFaults, startGenerator } from "./generator.ts";
import type { Duty, Peer } from "./peers.ts";
import { Clocks, type Usage } from "./process/clocks.ts";
import { type Server, startServer } from "./server.ts";

export interface LoadSample {
  /** Empty when the run counts. */
  faults: string[];
  /** Messages, or with churn connections. */
  perSecond: number;
  serverMicrosPerUnit: number;
  unitsPerServerCpuSecond: number;
  /** CPU used in the window, as a share of one core. */
  serverShare: number;
  clientShare: number;
  /** Of the server's core, by anything but the server. Undefined without pinning. */
  othersShare?: number;
  usage: Usage;
  result: LoadResult;
}

const NS_PER_MS = 1e6;
/** A straight line over more than this part of the window is a guess. */
const MAX_GAP_SHARE = 0.05;

function evaluate(usage: Usage, result: LoadResult, pinned: boolean): LoadSample {
  const { startedAt, endedAt } = result.windows;
  const windowMs = endedAt - startedAt;
  const serverShare = usage.serverNs / NS_PER_MS / windowMs;
  const coreShare = usage.coreNs / NS_PER_MS / windowMs;
  const faults: string[] = [];
  if (usage.edgeGapMs > MAX_GAP_SHARE * windowMs) {
    faults.push(`the server's clock was not read for ${Math.round(usage.edgeGapMs)} ms: the machine is too busy`);
  }
  return {
    faults,
    perSecond: result.perSecond,
    serverMicrosPerUnit: (serverShare * 1e6) / result.perSecond,
    unitsPerServerCpuSecond: result.perSecond / serverShare,
    serverShare,
    clientShare: result.cpuSeconds / result.seconds,
    ...(pinned ? { othersShare: Math.max(0, coreShare - serverShare) } : {}),
    usage,
    result,
  };
}

async function loadServer(server: Server, load: Load, bench: Bench): Promise<LoadSample> {
  const core = bench.machine.pinning?.server;
  const clocks = new Clocks(server.pids, core);
  try {
    const generator = await startGenerator(server.address, load, bench);
    const result = await generator.result.finally(generator.end);
    clocks.stop();
    const { startedAt, endedAt } = result.windows;
    const sample = evaluate(clocks.between(startedAt, endedAt), result, core !== undefined);
    sample.faults.push(...loadFaults(result, load));
    return sample;
  } finally {
    clocks.stop();
  }
}

/** Runs `use` with a server of its own. What is wrong with the server afterwards is added to the sample's faults. */
export async function withServer<S extends { faults: string[] }>(
  start: Promise<Server>,
  use: (server: Server) => Promise<S>,
): Promise<S> {
  const server = await start;
  try {
    const sample = await use(server);
    const faults = [server.fault(), await server.end()];
    sample.faults.push(...faults.filter((fault) => fault !== undefined));
    return sample;
  } finally {
    await server.end();
  }
}

/** Starts the peer, loads it, ends it. Throws when there is nothing to report. */
export function measureLoad(peer: Peer, duty: Duty, load: Load, bench: Bench): Promise<LoadSample> {
  return withServer(startServer(peer, duty, bench.machine), (server) => loadServer(server, load, bench));
}
