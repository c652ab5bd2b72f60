/**
 * What it costs to turn a newcomer away, beside what it costs to let one in who leaves at once: CPU time of one worker
 * (and its primary) on a core of their own, while a client on another core connects as fast as it can.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startHeadrace } from "../handover/headrace.ts";
import type { SuiteResult } from "../handover/suite.ts";
import type { Machine } from "../machine.ts";
import { cpuNs } from "../process/cpu.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";
import { Knocking } from "./knocking.ts";

export const REJECT_USAGE = `npm run bench -- reject [options]

  what it costs to turn a newcomer away, beside letting one in

  --runs N       rounds; every case once in each (5)
  --seconds N    measured in each run (3)
  --quick        1 run of 1 s
  --json FILE    raw figures`;

interface Case {
  readonly name: string;
  readonly config: object;
  /** Clients that stay, so that there is no place for anybody else. */
  readonly held: number;
  readonly admitted: boolean;
}

const ANY = 1_000_000;
const CASES: readonly Case[] = [
  { name: "accepted", config: {}, held: 0, admitted: true },
  {
    name: "accepted, its address counted",
    config: {
      limits: { connectionsPerAddress: ANY, connectRate: ANY, connectBurst: ANY },
      admission: { deny: ["192.0.2.0/24"] },
    },
    held: 0,
    admitted: true,
  },
  { name: "max-connections", config: { limits: { connections: 1 } }, held: 1, admitted: false },
  { name: "per-address", config: { limits: { connectionsPerAddress: 1 } }, held: 1, admitted: false },
  { name: "rate", config: { limits: { connectRate: 1, connectBurst: 1 } }, held: 1, admitted: false },
  { name: "denied", config: { admission: { deny: ["127.0.0.1"] } }, held: 0, admitted: false },
];

interface Sample {
  readonly perSecond: number;
  readonly cpuUs: number;
  /** Share of its core that the server used. */
  readonly busy: number;
}

async function hold(port: number, count: number): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, () => connect(port, "127.0.0.1"));
  for (const socket of sockets) {
    socket.write("here\n");
    await once(socket, "data");
  }
  return sockets;
}

async function measure({ config, held, admitted }: Case, seconds: number, machine: Machine): Promise<Sample> {
  const timeouts = { firstByte: "off", idle: "off" };
  const subject = await startHeadrace({ machine, workers: 1, quick: false, config: { timeouts, ...config } });
  try {
    const holders = await hold(subject.port, held);
    const knocking = new Knocking(subject.port, admitted);
    await sleep(500);
    const look = async (): Promise<{ count: number; ns: number; at: number }> => {
      const { totals } = await subject.status();
      return {
        count: admitted ? totals.accepted : totals.rejected,
        ns: cpuNs(subject.processes()),
        at: performance.now(),
      };
    };
    const before = await look();
    await sleep(seconds * 1_000);
    const after = await look();
    await knocking.stop();
    for (const socket of holders) socket.destroy();
    const [count, ns, ms] = [after.count - before.count, after.ns - before.ns, after.at - before.at];
    return { perSecond: (count / ms) * 1_000, cpuUs: ns / 1_000 / count, busy: ns / 1e6 / ms };
  } finally {
    await subject.end();
  }
}

export interface RejectOptions {
  readonly runs: number;
  readonly seconds: number;
  readonly jsonFile?: string;
}

/** Returns undefined when help was asked for. */
export function parseReject(args: readonly string[]): RejectOptions | undefined {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: { runs: text, seconds: text, quick: flag, json: text, help: flag },
  });
  if (values.help) return undefined;
  return {
    runs: Number(values.runs ?? (values.quick ? 1 : 5)),
    seconds: Number(values.seconds ?? (values.quick ? 1 : 3)),
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}

export async function measureReject(
  { runs, seconds }: RejectOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  const samples = CASES.map((): Sample[] => []);
  for (let run = 0; run < runs; run++) {
    for (const [index, each] of CASES.entries()) {
      progress(`${each.name}, run ${run + 1} of ${runs}`);
      samples[index]?.push(await measure(each, seconds, machine));
    }
  }
  const median = (of: readonly Sample[] | undefined, what: keyof Sample): number =>
    spread((of ?? []).map((sample) => sample[what]))?.median ?? 0;
  const accepted = median(samples[0], "cpuUs");
  const rows = CASES.map(({ name }, index) => {
    const cpuUs = median(samples[index], "cpuUs");
    const busy = `${(median(samples[index], "busy") * 100).toFixed(0)} %`;
    return [
      name,
      figure(median(samples[index], "perSecond")),
      figure(1e6 / cpuUs),
      figure(cpuUs),
      (cpuUs / accepted).toFixed(2),
      busy,
    ];
  });
  const head = [
    "newcomers",
    "a second",
    "per server CPU second",
    "server CPU µs each",
    "of an accepted one",
    "server's core",
  ];
  const text = `## reject: one worker, ${runs} runs of ${seconds} s\n\n${table(head, rows)}`;
  return { text, data: { cases: CASES.map(({ name }, index) => ({ name, samples: samples[index] })) }, sound: true };
}
