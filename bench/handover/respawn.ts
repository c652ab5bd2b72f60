/**
 * A worker is killed with SIGKILL while clients come and go: how long until its slot is accepting again by its
 * replacement, and how long the newcomers waited who met the dead worker's queue. Every kill has a fresh server: the
 * pause before a replacement grows with each death of the same slot, and here only the first is looked at. Then one
 * server loses a random worker every second for half a minute: whose connections are cut, and does anybody else notice?
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadReport, VerifiedLoad } from "../../test/support/verified-load.js";
import type { Machine } from "../machine.ts";
import { ROOT } from "../peers.ts";
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
const SECOND_MS = 1_000;
const MINUTE_MS = 60_000;
const STORM_WORKERS = 3;
const STORM_S = 30;
const QUICK_STORM_S = 5;

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

/** What one death cost. */
interface Death {
  readonly victim: number;
  /** Connections of the victim that were cut, and of others. */
  readonly cut: number;
  readonly others: number;
  readonly report: LoadReport;
}

/** A random worker dies every second. */
async function killOn(options: HandoverOptions, machine: Machine): Promise<Death[]> {
  const { connections, intervalMs, churnPerSecond, quick } = options;
  const service = join(ROOT, "bench", "handover", "pid-service.mjs");
  const subject = await startHeadrace({ machine, workers: STORM_WORKERS, quick, service, rebalance: false });
  const deaths: Death[] = [];
  try {
    const { port } = subject;
    const tagged = true;
    const load = await VerifiedLoad.start({
      port,
      connections,
      intervalMs,
      churnPerSecond,
      tagged,
      mostMs: MINUTE_MS * 2,
    });
    try {
      for (let second = 0; second < (quick ? QUICK_STORM_S : STORM_S); second++) {
        const next = sleep(SECOND_MS);
        const alive = (await subject.status()).workers.filter(({ state }) => state === "accepting");
        const victim = alive[Math.floor(Math.random() * alive.length)]?.pid ?? 0;
        if (victim === 0) throw new Error("no worker serves");
        process.kill(victim, "SIGKILL");
        await next;
        const report = await load.take();
        const { [victim]: cut = 0, ...rest } = report.cutByTag;
        deaths.push({ victim, cut, others: Object.values(rest).reduce((sum, count) => sum + count, 0), report });
      }
    } finally {
      load.kill();
    }
  } finally {
    await subject.end();
  }
  return deaths;
}

/** A newcomer that was with the victim is cut off too; refused or kept waiting is nobody. */
function describeStorm(deaths: readonly Death[]): string {
  const sum = (of: (death: Death) => number): number => deaths.reduce((total, death) => total + of(death), 0);
  const longest = Math.max(...deaths.map(({ report }) => report.churn.latency.max));
  return [
    `A random worker of ${STORM_WORKERS} killed every second, ${deaths.length} times: ${sum(({ cut }) => cut)} held connections`,
    `of the dead cut, ${sum(({ others }) => others)} of others; of ${sum(({ report }) => report.churn.opened)} newcomers`,
    `${sum(({ report }) => report.churn.refused)} refused, ${sum(({ report }) => report.churn.hung)} hung over 1 s,`,
    `${sum(({ report }) => report.churn.reset + report.churn.disconnected)} cut with their worker; longest wait ${figure(longest)} ms.`,
  ].join(" ");
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
  progress("a random worker every second");
  const deaths = await killOn(options, machine);
  const sound = [...kills, ...deaths].every(
    ({ report: { churn, held } }) => churn.refused + churn.hung + held.refused + held.lost + held.wrong === 0,
  );
  const title = `## respawn: ${WORKERS} workers, ${options.connections} held connections, ${options.churnPerSecond} newcomers a second, ${options.rounds} kills`;
  const text = [title, table(["", "median", "least", "worst"], rows), describeStorm(deaths)].join("\n\n");
  return { text, data: { options, kills, deaths }, sound: sound && deaths.every(({ others }) => others === 0) };
}
