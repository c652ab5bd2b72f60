/**
 * A worker is killed with SIGKILL while clients come and go: how long until its slot is accepting again by its
 * replacement, and how long the newcomers waited who met the dead worker's queue. Every kill has a fresh server: the
 * pause before a replacement grows with each death of the same slot, and here only the first is looked at.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadReport, VerifiedLoad } from "../../test/support/verified-load.js";
import type { Machine } from "../machine.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";
import { startHeadrace } from "./headrace.ts";
import type { HandoverOptions } from "./options.ts";
import { eventually } from "./subject.ts";
import type { SuiteResult } from "./suite.ts";

interface Kill {
  /** From the signal to the log's word that the slot's new worker accepts. */
  readonly respawnMs: number;
  readonly report: LoadReport;
}

const WORKERS = 2;
const SETTLE_MS = 500;
/** Newcomers that met the dead worker's queue have their answer by then. */
const AFTER_MS = 1_500;
const MINUTE_MS = 60_000;

async function killOnce(options: HandoverOptions, machine: Machine): Promise<Kill> {
  const { connections, intervalMs, churnPerSecond, quick } = options;
  const subject = await startHeadrace({ machine, workers: WORKERS, quick });
  try {
    const { port } = subject;
    const load = await VerifiedLoad.start({ port, connections, intervalMs, churnPerSecond, mostMs: MINUTE_MS });
    try {
      const { workers } = await subject.status();
      const victim = workers[Math.floor(Math.random() * workers.length)];
      if (victim === undefined) throw new Error("no worker to kill");
      await sleep(SETTLE_MS);
      await load.take();
      process.kill(victim.pid, "SIGKILL");
      const killedAt = Date.now();
      const { time } = await eventually("it is replaced", () =>
        subject.log.find(({ msg }) => msg === `worker ${victim.index} was replaced`),
      );
      await sleep(AFTER_MS);
      return { respawnMs: time - killedAt, report: await load.take() };
    } finally {
      load.kill();
    }
  } finally {
    await subject.end();
  }
}

export async function measureRespawn(
  options: HandoverOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  const kills: Kill[] = [];
  for (let round = 0; round < options.rounds; round++) {
    progress(`kill ${round + 1} of ${options.rounds}`);
    kills.push(await killOnce(options, machine));
  }
  const row = (title: string, of: (kill: Kill) => number): string[] => {
    const values = spread(kills.map(of));
    return [title, ...(values === undefined ? [] : [values.median, values.min, values.max].map(figure))];
  };
  const rows = [
    row("SIGKILL → its slot's new worker accepts, ms", ({ respawnMs }) => respawnMs),
    row("longest wait of a newcomer, connect to reply, ms", ({ report }) => report.churn.latency.max),
    row("newcomers refused", ({ report }) => report.churn.refused),
    row("newcomers that hung over 1 s", ({ report }) => report.churn.hung),
    row("held connections cut", ({ report }) => report.held.reset + report.held.disconnected),
  ];
  const sound = kills.every(({ report }) => report.churn.refused + report.churn.hung + report.held.lost === 0);
  const title = `## respawn: ${WORKERS} workers, ${options.connections} held connections, ${options.churnPerSecond} newcomers a second, ${options.rounds} kills`;
  return { text: [title, table(["", "median", "least", "worst"], rows)].join("\n\n"), data: { options, kills }, sound };
}
