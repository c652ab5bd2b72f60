/**
 * Held connections and churn while a server changes, over and over, beside the same load left alone in the same run:
 * what the clients saw. headrace by reload and by upgrade; nginx and pm2, with the same clients, by their reload.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadReport, type LoadSide, VerifiedLoad } from "../../test/support/verified-load.js";
import type { Machine } from "../machine.ts";
import { spread } from "../statistics.ts";
import { figure, table } from "../table.ts";
import { startHeadrace } from "./headrace.ts";
import { startNginx } from "./nginx.ts";
import type { HandoverOptions } from "./options.ts";
import { startPm2 } from "./pm2.ts";
import { Absent, type Change, type Subject, type SubjectId, type SubjectOptions } from "./subject.ts";
import type { SuiteResult } from "./suite.ts";

/** As many as the machine has cores for, but more than one: a handover concerns several. */
const WORKERS = 2;
/** Between two changes: what a change leaves behind shows, and old workers may go. */
const BETWEEN_MS = 500;
const SETTLE_MS = 2_000;
/** After the last change: what old workers do to the connections they still hold has shown by then. */
const AFTERMATH_MS = 6_000;
const HOUR_MS = 3_600_000;
/** Clients that stood still for longer did not see what a server did. */
const OWN_PAUSE_MS = 500;

interface Phase {
  readonly subject: string;
  readonly phase: string;
  readonly report: LoadReport;
  /** Duration of each change, s. */
  readonly seconds: readonly number[];
  /** Processes at its end. */
  readonly processes: number;
  /** Why a change failed. */
  readonly failures: readonly string[];
}

function start(id: SubjectId, options: SubjectOptions): Promise<Subject> {
  switch (id) {
    case "headrace":
      return startHeadrace(options);
    case "nginx":
    case "nginx-timeout":
      return startNginx(options, id === "nginx-timeout");
    case "pm2":
      return startPm2(options);
  }
}

async function leaveAlone(subject: Subject, load: VerifiedLoad, seconds: number): Promise<Phase> {
  await load.take();
  await sleep(seconds * 1000);
  const report = await load.take();
  const processes = subject.processes().length;
  return { subject: subject.name, phase: "left alone", report, seconds: [], processes, failures: [] };
}

async function change(subject: Subject, load: VerifiedLoad, { name, run }: Change, rounds: number): Promise<Phase> {
  const seconds: number[] = [];
  const failures: string[] = [];
  for (let round = 0; round < rounds; round++) {
    const from = performance.now();
    await run().catch((error: Error) => failures.push(error.message));
    seconds.push((performance.now() - from) / 1000);
    await sleep(BETWEEN_MS);
  }
  await sleep(AFTERMATH_MS);
  const report = await load.take();
  const processes = subject.processes().length;
  return { subject: subject.name, phase: `${rounds} ${name}s`, report, seconds, processes, failures };
}

async function play(subject: Subject, options: HandoverOptions, progress: (text: string) => void): Promise<Phase[]> {
  const { connections, intervalMs, churnPerSecond, rounds, aloneSeconds } = options;
  progress(`${subject.name}: opening ${connections} connections`);
  const { port } = subject;
  const load = await VerifiedLoad.start({ port, connections, intervalMs, churnPerSecond, mostMs: HOUR_MS });
  try {
    await sleep(SETTLE_MS);
    progress(`${subject.name}: left alone for ${aloneSeconds} s`);
    const phases = [await leaveAlone(subject, load, aloneSeconds)];
    for (const each of subject.changes) {
      progress(`${subject.name}: ${rounds} ${each.name}s`);
      phases.push(await change(subject, load, each, rounds));
    }
    return phases;
  } finally {
    load.kill();
  }
}

/** Of both kinds of connections together. */
function both(report: LoadReport, of: (side: LoadSide) => number): string {
  return figure0(of(report.held) + of(report.churn));
}

const figure0 = (value: number): string => value.toLocaleString("en-US");

function cells({ subject, phase, report, seconds, processes, failures }: Phase): string[] {
  const { held, churn, ownPauseMs } = report;
  const durations = spread(seconds);
  return [
    `${subject}: ${phase}`,
    both(report, (side) => side.refused),
    both(report, (side) => side.reset),
    both(report, (side) => side.disconnected),
    both(report, (side) => side.lost + side.owed),
    both(report, (side) => side.repeated + side.reordered + side.wrong),
    both(report, (side) => side.hung),
    figure(held.latency.p999),
    figure(held.latency.max),
    figure(churn.latency.p999),
    figure(churn.latency.max),
    figure(ownPauseMs),
    durations === undefined ? "–" : `${durations.median.toFixed(1)} (${durations.max.toFixed(1)})`,
    String(processes),
    failures.length === 0 ? "" : `${failures.length} FAILED`,
  ];
}

const HEAD = [
  "clients saw",
  "refused",
  "reset",
  "disconnected",
  "replies lost",
  "repeated, wrong",
  "hung > 1 s",
  "held p99.9 ms",
  "longest",
  "churn p99.9 ms",
  "longest",
  "own pause",
  "s each (max)",
  "processes",
  "",
];

/** Refused, reset, disconnected, lost, repeated, wrong, hung: all of it. */
function troubles(side: LoadSide): number {
  const { refused, reset, disconnected, failed, hung, lost, owed, repeated, reordered, wrong } = side;
  return refused + reset + disconnected + failed + hung + lost + owed + repeated + reordered + wrong;
}

export async function compareHandover(
  options: HandoverOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  const phases: Phase[] = [];
  const notes: string[] = [];
  for (const id of options.subjects) {
    try {
      const subject = await start(id, { machine, workers: WORKERS, quick: options.quick });
      try {
        phases.push(...(await play(subject, options, progress)));
      } finally {
        await subject.end();
      }
    } catch (error) {
      if (!(error instanceof Absent)) throw error;
      notes.push(`MISSING ${id}: ${error.message}`);
    }
  }
  const own = phases.filter(({ subject }) => subject === "headrace");
  for (const { subject, phase, report, failures } of phases) {
    notes.push(...failures.map((text) => `${subject}, ${phase}: ${text}`));
    if (subject === "headrace") notes.push(...report.faults.map((text) => `${subject}, ${phase}: ${text}`));
  }
  for (const { subject, phase, report } of phases) {
    if (report.ownPauseMs < OWN_PAUSE_MS) continue;
    notes.push(
      `${subject}, ${phase}: the clients themselves stood still for ${figure(report.ownPauseMs)} ms: the machine is too ` +
        "busy, and this row's waits prove nothing. Close what else runs here.",
    );
  }
  const { connections, intervalMs, churnPerSecond } = options;
  const title = `## handover: ${connections} held connections with a line every ${intervalMs} ms each, ${churnPerSecond} short ones a second, ${WORKERS} workers`;
  const troubled = ({ report, failures }: Phase): number =>
    troubles(report.held) + troubles(report.churn) + failures.length;
  return {
    text: [title, table(HEAD, phases.map(cells)), notes.join("\n")].filter((part) => part !== "").join("\n\n"),
    data: { options, phases },
    sound: own.every((phase) => troubled(phase) === 0),
  };
}
