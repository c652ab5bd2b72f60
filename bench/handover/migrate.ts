/**
 * One worker with all the connections, each with a line now and then, moved to its replacement by `drain 0 --wait`: how
 * long it takes, how long the event loop of either side stands still (a service that watches its own, so a pause
 * contains everything: the engine, the collector, other processes on the core), and the memory.
 */

import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadReport, VerifiedLoad } from "../../test/support/verified-load.js";
import type { Machine } from "../machine.ts";
import { ROOT } from "../peers.ts";
import { pssBytes } from "../process/memory.ts";
import { figure, table } from "../table.ts";
import { type Headrace, startHeadrace } from "./headrace.ts";
import type { HandoverOptions } from "./options.ts";
import { eventually } from "./subject.ts";
import type { SuiteResult } from "./suite.ts";

/** What a worker saw of its own event loop. */
interface Loop {
  readonly pid: number;
  /** Longest that a timer was late. */
  readonly longestMs: number;
  /** Most CPU time of the main thread between two ticks. */
  readonly longestCpuMs: number;
}

interface Move {
  readonly seconds: number;
  readonly source: Loop;
  readonly target: Loop;
  readonly moved: number;
  /** PSS of all processes before and after, bytes. */
  readonly before: number;
  readonly after: number;
  /** Most that the two workers had resident, each at its own time (VmHWM), bytes. */
  readonly peakSource: number;
  readonly peakTarget: number;
  readonly report: LoadReport;
}

/** A loop may stand still for this long, ms. */
const PAUSE_MS = 50;
const HOUR_MS = 3_600_000;
const SETTLE_MS = 2_000;
const MIB = 1024 * 1024;
/** A client process has 20,000 descriptors or fewer. */
const PER_PROCESS = 10_000;

async function askLoop(port: number): Promise<Loop> {
  const socket = connect(port, "127.0.0.1");
  socket.write("loop\n");
  for await (const line of createInterface(socket)) {
    socket.destroy();
    return JSON.parse(line);
  }
  throw new Error("no answer about the loop");
}

/** Most resident so far; 0 when the process has gone. */
function peakBytes(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

async function moveOnce(subject: Headrace, load: VerifiedLoad): Promise<Move> {
  const [worker] = (await subject.status()).workers;
  const source = worker?.pid ?? 0;
  await askLoop(subject.port);
  await load.take();
  const before = pssBytes(subject.processes());
  let peakSource = 0;
  const watching = setInterval(() => {
    peakSource = Math.max(peakSource, peakBytes(source));
  }, 20);
  const from = performance.now();
  await subject.command("drain", "0", "--wait");
  const seconds = (performance.now() - from) / 1000;
  clearInterval(watching);
  const target = await askLoop(subject.port);
  const said = await eventually("the source says what it saw", () =>
    subject.log.find(({ msg, pid }) => msg === "loop" && pid === source),
  );
  await eventually("the source has gone", () => !subject.processes().includes(source));
  await sleep(SETTLE_MS);
  const after = await subject.status();
  return {
    seconds,
    source: said as unknown as Loop,
    target,
    moved: after.workers[0]?.movedIn ?? 0,
    before,
    after: pssBytes(subject.processes()),
    peakSource,
    peakTarget: peakBytes(target.pid),
    report: await load.take(),
  };
}

const showLoop = ({ longestMs, longestCpuMs }: Loop): string => `${figure(longestMs)} (${figure(longestCpuMs)})`;

function cells(move: Move, index: number): string[] {
  const { held } = move.report;
  return [
    `move ${index + 1}`,
    figure(move.moved),
    move.seconds.toFixed(2),
    showLoop(move.source),
    showLoop(move.target),
    figure(held.latency.max),
    figure(move.before / MIB),
    figure(move.after / MIB),
    figure(move.peakSource / MIB),
    figure(move.peakTarget / MIB),
    String(held.reset + held.disconnected + held.lost + held.owed + held.repeated + held.reordered + held.wrong),
  ];
}

const HEAD = [
  "drain 0 --wait",
  "moved",
  "s (with a new worker's start)",
  "source loop late at most ms (own CPU)",
  "target loop",
  "client waited at most ms",
  "PSS before MiB",
  "after",
  "peak RSS source",
  "target",
  "cut, lost, wrong",
];

export async function measureMigration(
  options: HandoverOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  const { connections, intervalMs, churnPerSecond, rounds, quick } = options;
  const service = join(ROOT, "bench", "handover", "loop-service.mjs");
  const subject = await startHeadrace({ machine, workers: 1, quick, service });
  const moves: Move[] = [];
  try {
    progress(`opening ${connections} connections`);
    const load = await VerifiedLoad.start({
      port: subject.port,
      connections,
      intervalMs,
      churnPerSecond,
      processes: Math.ceil(connections / PER_PROCESS),
      mostMs: HOUR_MS,
    });
    try {
      for (let round = 0; round < rounds; round++) {
        await sleep(SETTLE_MS);
        progress(`move ${round + 1} of ${rounds}`);
        moves.push(await moveOnce(subject, load));
      }
    } finally {
      load.kill();
    }
  } finally {
    await subject.end();
  }
  const faults = moves.flatMap(({ report }) => report.faults);
  // What others took of the core is not the server's doing.
  const brief = ({ longestCpuMs }: Loop): boolean => longestCpuMs <= PAUSE_MS;
  const sound =
    faults.length === 0 && moves.every(({ moved, source, target }) => moved > 0 && brief(source) && brief(target));
  const title = `## migrate: ${connections} connections with a line every ${intervalMs} ms each, from one worker to its replacement`;
  return {
    text: [title, table(HEAD, moves.map(cells)), faults.join("\n")].join("\n\n"),
    data: { options, moves },
    sound,
  };
}
