/**
 * Weeks of operation in a row, for as long as one likes: ordinary clients who check every reply, hostile ones beside
 * them, and one change after the other, in random order: a worker is killed, all are replaced, the primary is replaced,
 * there are more of them or fewer, one is drained. After each change the clients are asked what they saw; in the end
 * everybody goes, and nothing may be left.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadReport, type LoadSide, VerifiedLoad } from "../../test/support/verified-load.js";
import { type Headrace, startHeadrace } from "../handover/headrace.ts";
import { eventually } from "../handover/subject.ts";
import type { Machine } from "../machine.ts";
import { table } from "../table.ts";
import { Hostile } from "./hostile.ts";
import type { SoakOptions } from "./options.ts";
import { remains, type Sample, sample, slope } from "./remains.ts";

const WORKERS = 3;
const FEWEST = 2;
const MOST = 4;
/** Between two changes. */
const BETWEEN_MS = 1_000;
/** What a change did to the clients has shown by then. */
const AFTER_MS = 1_000;
const INTERVAL_MS = 500;
/** Descriptors that may come and go: a log line being written, a connection of the control socket. */
const SLACK = 4;
/** A longer run proves something of memory: so much more an hour is a leak, bytes. */
const SLOPE_MINUTES = 10;
const SLOPE_MOST = 64 * 1024 * 1024;
const MiB = 1024 * 1024;

const CHANGES = ["kill", "reload", "upgrade", "scale", "drain"] as const;
type Change = (typeof CHANGES)[number];

interface Step {
  readonly change: Change;
  readonly seconds: number;
  readonly report: LoadReport;
  /** Why it failed. */
  readonly failure?: string;
}

export interface SoakResult {
  readonly text: string;
  readonly data: object;
  readonly sound: boolean;
}

/** Numbers from 0 to 1, the same for the same seed (a linear congruence of 32 bits, by Numerical Recipes' constants). */
function lottery(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** What no change may do to a client; `cut` is what a killed worker does to its own. */
function trouble({ held, churn }: LoadReport, killed: boolean): number {
  const any = (side: LoadSide): number =>
    side.refused + side.failed + side.hung + side.lost + side.repeated + side.reordered + side.wrong;
  const cut = (side: LoadSide): number => side.reset + side.disconnected + side.owed;
  return any(held) + any(churn) + (killed ? 0 : cut(held) + cut(churn));
}

async function settled(subject: Headrace): Promise<number> {
  return eventually("all workers accept, and the replaced have gone", async () => {
    const status = await subject.status().catch(() => undefined);
    const { workers = [], draining = [] } = status ?? {};
    const calm = workers.every(({ state }) => state === "accepting") && draining.length === 0;
    return calm && subject.processes().length === 1 + workers.length ? workers.length : undefined;
  });
}

/** Makes one change and waits until it is complete. */
async function make(change: Change, subject: Headrace, draw: () => number): Promise<void> {
  const { workers } = await subject.status();
  const one = workers[Math.floor(draw() * workers.length)];
  if (!one) throw new Error("no worker is there");
  switch (change) {
    case "kill":
      process.kill(one.pid, "SIGKILL");
      // Until then it may still look alive.
      await eventually("its end is noticed", async () => {
        const { workers: now } = await subject.status();
        return now.every(({ pid }) => pid !== one.pid);
      });
      break;
    case "reload":
      await subject.command("reload", "--replace", "--wait");
      break;
    case "upgrade":
      await subject.command("upgrade", "--wait");
      break;
    case "scale":
      await subject.command("scale", String(FEWEST + Math.floor(draw() * (MOST - FEWEST + 1))), "--wait");
      break;
    case "drain":
      await subject.command("drain", String(one.index), "--wait");
      break;
  }
  await settled(subject);
}

function portOf(subject: Headrace, name: string): number {
  const ready = subject.log.find(({ msg }) => msg === "ready");
  const listeners = (ready?.listeners ?? []) as { name: string; address: string }[];
  return Number(
    listeners
      .find((each) => each.name === name)
      ?.address.split(":")
      .at(-1),
  );
}

function describe(steps: readonly Step[]): string {
  const rows = CHANGES.map((change) => {
    const of = steps.filter((step) => step.change === change);
    const sum = (count: (report: LoadReport) => number): number =>
      of.reduce((total, { report }) => total + count(report), 0);
    const killed = change === "kill";
    return [
      change,
      String(of.length),
      String(of.filter(({ failure }) => failure !== undefined).length),
      sum(({ held, churn }) => held.verified + churn.verified).toLocaleString("en-US"),
      sum(({ held, churn }) => held.reset + held.disconnected + churn.reset + churn.disconnected).toLocaleString(
        "en-US",
      ),
      sum((report) => trouble(report, killed)).toLocaleString("en-US"),
      Math.max(0, ...of.map(({ report }) => report.held.latency.max)).toFixed(0),
    ];
  });
  return table(["change", "times", "failed", "replies verified", "cut", "wrongs", "longest ms"], rows);
}

function describeSamples(samples: readonly Sample[]): string {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || !last) return "";
  const row = (title: string, of: (each: Sample) => number): string[] => [
    title,
    of(first).toFixed(0),
    Math.max(...samples.map(of)).toFixed(0),
    of(last).toFixed(0),
  ];
  return table(
    ["", "before", "most", "after"],
    [
      row("PSS of all processes, MiB", (each) => each.pssBytes / MiB),
      row("processes", (each) => each.processes),
      row("descriptors of the primary", (each) => each.primaryDescriptors),
      row("descriptors of a worker, at most", (each) => each.workerDescriptors),
    ],
  );
}

/** Everybody has gone: waits until nothing is left that ends by itself. Returns what is left all the same. */
async function calm(subject: Headrace): Promise<string[]> {
  const left = async (): Promise<string[]> => {
    const { totals, workers } = await subject.status();
    const counts = {
      connections: totals.open,
      "bytes held": totals.bytesHeldIn + totals.bytesHeldOut,
      "tasks waiting": workers.reduce((sum, { waiting }) => sum + waiting, 0),
    };
    return Object.entries(counts).flatMap(([what, count]) => (count === 0 ? [] : [`${what}: ${count}`]));
  };
  return eventually("everybody has gone", async () => (await left()).length === 0).then(() => [], left);
}

async function play(
  subject: Headrace,
  { minutes, connections, churnPerSecond, seed }: SoakOptions,
  progress: (text: string) => void,
): Promise<SoakResult> {
  const folder = subject.folder;
  const began = performance.now();
  const endAt = began + minutes * 60_000;
  const draw = lottery(seed);
  await settled(subject);
  const samples = [sample(began, subject.processes(), folder)];
  const load = await VerifiedLoad.start({
    port: portOf(subject, "lines"),
    connections,
    intervalMs: INTERVAL_MS,
    churnPerSecond,
    mostMs: minutes * 60_000 + 600_000,
  });
  const hostile = new Hostile(portOf(subject, "frames"));
  const steps: Step[] = [];
  const notes: string[] = [];
  let last: LoadReport | undefined;
  try {
    await load.take();
    while (performance.now() < endAt) {
      const change = CHANGES[Math.floor(draw() * CHANGES.length)] as Change;
      const from = performance.now();
      const failure = await make(change, subject, draw).then(
        () => undefined,
        (error: Error) => error.message,
      );
      const seconds = (performance.now() - from) / 1000;
      await sleep(AFTER_MS);
      const report = await load.take();
      const step = { change, seconds, report, ...(failure === undefined ? {} : { failure }) };
      steps.push(step);
      samples.push(sample(began, subject.processes(), folder));
      const wrongs = trouble(report, change === "kill");
      if (failure !== undefined) notes.push(`${change} failed: ${failure}`);
      if (wrongs > 0) notes.push(...report.faults.map((text) => `${change}: ${text}`));
      const left = Math.max(0, (endAt - performance.now()) / 60_000);
      progress(`${change}, ${seconds.toFixed(1)} s, ${wrongs} wrongs; ${left.toFixed(1)} minutes left`);
      await sleep(BETWEEN_MS);
    }
    last = await load.stop();
  } finally {
    load.kill();
    hostile.end();
  }
  await subject.command("scale", String(WORKERS), "--wait");
  await settled(subject);
  const left = await calm(subject);
  samples.push(sample(began, subject.processes(), folder));
  const [before, after] = [samples[0] as Sample, samples.at(-1) as Sample];
  left.push(...remains(before, after, SLACK));
  const growth = slope(samples);
  if (minutes >= SLOPE_MINUTES && growth > SLOPE_MOST)
    left.push(`memory: ${(growth / MiB).toFixed(0)} MiB more an hour`);
  const { closes, totals } = await subject.status();
  const wrongs =
    steps.reduce((sum, { change, report }) => sum + trouble(report, change === "kill"), 0) + trouble(last, false);
  const failed = steps.filter(({ failure }) => failure !== undefined).length;
  const reasons = Object.entries(closes).flatMap(([reason, count]) => (count > 0 ? [`${count} ${reason}`] : []));
  const attacks = Object.entries(hostile.begun).map(([name, count]) => `${count} ${name}`);
  const text = [
    `## soak: ${minutes} minutes, ${connections} held connections, ${churnPerSecond} short ones a second, seed ${seed}`,
    describe(steps),
    `hostile clients: ${attacks.join(", ")}\ncloses of the last generation: ${reasons.join(", ")}; ${totals.accepted} accepted`,
    describeSamples(samples),
    minutes < SLOPE_MINUTES ? "" : `memory: ${(growth / MiB).toFixed(1)} MiB an hour over the later half`,
    notes.join("\n"),
    left.length === 0 ? "nothing is left" : `LEFT: ${left.join("; ")}`,
  ];
  return {
    text: text.filter((part) => part !== "").join("\n\n"),
    data: { seed, steps, samples, left },
    sound: wrongs + failed + left.length === 0,
  };
}

export async function measureSoak(
  options: SoakOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SoakResult> {
  const subject = await startHeadrace({
    machine,
    workers: WORKERS,
    quick: true,
    config: {
      listeners: [
        { name: "lines", address: "127.0.0.1:0", service: "echo-line" },
        {
          name: "frames",
          address: "127.0.0.1:0",
          service: "echo-frame",
          timeouts: { firstByte: "1s", frame: "2s", idle: "3s", writeStall: "2s" },
        },
      ],
      limits: { bufferMemory: "64MiB" },
      // A machine that is busy elsewhere is not what this is about: every request is to be answered.
      shed: { loopDelay: "off" },
    },
  });
  try {
    return await play(subject, options, progress);
  } finally {
    await subject.end();
  }
}
