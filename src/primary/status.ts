/** Answers `status`: what the primary knows of itself and its workers, with the scoreboard's figures. */
import type { Config } from "../config/config.ts";
import type { ServerStatus, WorkerStatus } from "../control/status.ts";
import type { Primary } from "./primary.ts";
import { usageOf } from "./usage.ts";

export interface ServerIdentity {
  readonly config: Config;
  readonly version: string;
  readonly control: string;
}

export async function serverStatus(
  primary: Primary,
  { config, version, control }: ServerIdentity,
): Promise<ServerStatus> {
  const usage = await usageOf([
    process.pid,
    ...primary.workers.filter(({ state }) => state !== "dead").map(({ pid }) => pid),
  ]);
  const workers = primary.workers.map(
    ({ index, pid, state }): WorkerStatus => ({
      index,
      pid,
      state,
      restarts: primary.restartsOf(index),
      ...primary.figures.worker(index),
      ...usage.get(pid),
    }),
  );
  return {
    pid: process.pid,
    version,
    state: primary.state,
    startedAt: new Date(primary.startedAt).toISOString(),
    uptimeMs: Date.now() - primary.startedAt,
    control,
    source: config.source,
    ...usage.get(process.pid),
    listeners: primary.figures.listeners(primary.addresses),
    workers,
    totals: {
      ...primary.figures.totals(),
      restarts: workers.reduce((total, { restarts }) => total + restarts, 0),
    },
    closes: primary.figures.closes(),
  };
}
