/**
 * What it costs to turn a newcomer away, beside what it costs to let one in who leaves at once: CPU time of one worker on a
 * core of its own, with thousands in its queue.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { parseArgs } from "node:util";
import { startHeadrace } from "../handover/headrace.ts";
import { eventually } from "../handover/subject.ts";
import type { SuiteResult } from "../handover/suite.ts";
import type { Machine } from "../machine.ts";
import { cpuNs } from "../process/cpu.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";
import { Knocking } from "./knocking.ts";

export const REJECT_USAGE = `npm run bench -- reject [options]

  what it costs to turn a newcomer away, beside letting one in

  --runs N       every case once in each (5)
  --rounds N     so often in each run 3,000 newcomers at once (10)
  --quick        1 run of 2 rounds
  --json FILE    raw figures`;

interface Case {
  readonly name: string;
  readonly config: object;
  /** Clients that stay, so that there is no place for anybody else. */
  readonly held: number;
}

const ANY = 1_000_000;
const CASES: readonly Case[] = [
  { name: "accepted", config: {}, held: 0 },
  {
    name: "accepted, its address counted",
    config: {
      limits: { connectionsPerAddress: ANY, connectRate: ANY, connectBurst: ANY },
      admission: { deny: ["192.0.2.0/24"] },
    },
    held: 0,
  },
  { name: "max-connections", config: { limits: { connections: 1 } }, held: 1 },
  { name: "per-address", config: { limits: { connectionsPerAddress: 1 } }, held: 1 },
  { name: "rate", config: { limits: { connectRate: 1, connectBurst: 1 } }, held: 1 },
  { name: "denied", config: { admission: { deny: ["127.0.0.1"] } }, held: 0 },
];

/** Who connects at once: fewer than a queue holds. */
const AT_ONCE = 3_000;

/** CPU time of the worker for each newcomer, µs. */
type Sample = number;

async function hold(port: number, count: number): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, () => connect(port, "127.0.0.1").on("error", () => {}));
  for (const socket of sockets) {
    socket.write("here\n");
    await once(socket, "data");
  }
  return sockets;
}

/** The newcomers of one round wait in the queue when the worker wakes, so that it is never without work. */
async function measure({ config, held }: Case, rounds: number, machine: Machine): Promise<Sample> {
  const timeouts = { firstByte: "off", idle: "off" };
  const subject = await startHeadrace({ machine, workers: 1, quick: false, config: { timeouts, ...config } });
  const knocking = new Knocking();
  try {
    const { port } = subject;
    const holders = await hold(port, held);
    const pid = (await subject.status()).workers[0]?.pid ?? 0;
    const answers = async (): Promise<number> => {
      const { accepted, rejected } = (await subject.status()).totals;
      return accepted + rejected;
    };
    let ns = 0;
    for (let round = 0; round <= rounds; round++) {
      const [before, answered] = [cpuNs([pid]), (await answers()) + AT_ONCE];
      process.kill(pid, "SIGSTOP");
      const connected = knocking.connected + AT_ONCE;
      knocking.knock(port, AT_ONCE);
      await eventually("everybody is connected", () => knocking.connected === connected);
      process.kill(pid, "SIGCONT");
      await eventually("everybody has an answer", async () => (await answers()) === answered);
      knocking.leave();
      await eventually("all have gone", async () => (await subject.status()).totals.open === held);
      // The first is for warming up.
      if (round > 0) ns += cpuNs([pid]) - before;
    }
    for (const socket of holders) socket.destroy();
    return ns / 1_000 / rounds / AT_ONCE;
  } finally {
    knocking.end();
    await subject.end();
  }
}

export interface RejectOptions {
  readonly runs: number;
  readonly rounds: number;
  readonly jsonFile?: string;
}

/** Returns undefined when help was asked for. */
export function parseReject(args: readonly string[]): RejectOptions | undefined {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: { runs: text, rounds: text, quick: flag, json: text, help: flag },
  });
  if (values.help) return undefined;
  return {
    runs: Number(values.runs ?? (values.quick ? 1 : 5)),
    rounds: Number(values.rounds ?? (values.quick ? 2 : 10)),
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}

export async function measureReject(
  { runs, rounds }: RejectOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  const samples = CASES.map((): Sample[] => []);
  for (let run = 0; run < runs; run++) {
    for (const [index, each] of CASES.entries()) {
      progress(`${each.name}, run ${run + 1} of ${runs}`);
      samples[index]?.push(await measure(each, rounds, machine));
    }
  }
  const medians = samples.map((of) => spread(of)?.median ?? 0);
  const rows = CASES.map(({ name }, index) => {
    const cpuUs = medians[index] ?? 0;
    return [name, figure(1e6 / cpuUs), figure(cpuUs), (cpuUs / (medians[0] ?? 0)).toFixed(2)];
  });
  const head = ["newcomers", "a second of CPU", "CPU µs each", "of an accepted one"];
  const text = `## reject: one worker, ${runs} runs of ${rounds} times ${figure(AT_ONCE)} at once\n\n${table(head, rows)}`;
  return { text, data: { cases: CASES.map(({ name }, index) => ({ name, samples: samples[index] })) }, sound: true };
}
