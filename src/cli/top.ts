/**
 * `headrace top`: the running server, live. On a terminal a screen that is drawn anew for each answer of `status`; into
 * a pipe a line for each; `--once` prints everything one time. One question at a time, so that a server that is slow to
 * answer is not asked more.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Command } from "commander";
import { messageOf } from "../base/errors.ts";
import { numeric } from "../config/kinds.ts";
import { COUNT, DURATION } from "../config/units.ts";
import type { ServerStatus } from "../control/status.ts";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";
import { readCount } from "./count.ts";
import { type TopFigures, topFigures } from "./top-figures.ts";
import { Screen } from "./top-screen.ts";
import { LINE_HEADING, SORTS, type ViewState, viewLine, viewOnce, viewTop } from "./top-view.ts";

interface TopOptions extends ControlOptions {
  readonly once?: boolean;
  readonly interval: string;
  readonly count?: string;
}

const INTERVAL = numeric(DURATION, 100, 3_600_000);
const TIMES = numeric(COUNT, 1, 1_000_000_000);
/** A server that is busy with a change answers later. */
const LEAST_PATIENCE_MS = 2_000;
/** In a pipe the heading comes again after so many lines. */
const HEADING_EVERY = 20;

const HELP = `
On a terminal: q quits, p pauses, and one key sorts the workers by what it stands for (w worker, c open connections,
r requests, b bytes, u CPU, m memory, h held bytes); the same key again: the other way round.
Into a pipe: a line for each interval. Rates are those of the last interval. When the server goes, it is looked for
until it is there again; with --once or at the end of --count, exit code 1.

Examples:
  $ headrace top
  $ headrace top --once
  $ headrace top --interval 5s --count 12 > minute.txt`;

/** Asks, and remembers what the answer before was. */
class Watch {
  readonly #options: ControlOptions;
  readonly #patienceMs: number;
  #before: ServerStatus | undefined;

  constructor(options: ControlOptions, intervalMs: number) {
    this.#options = options;
    this.#patienceMs = Math.max(LEAST_PATIENCE_MS, intervalMs);
  }

  /** Throws why there is no answer. */
  async look(): Promise<TopFigures> {
    try {
      const reply = await askServer({ type: "status" }, this.#options, this.#patienceMs);
      if (reply.type !== "status") throw new Error(`the server answered "${reply.type}"`);
      const figures = topFigures(this.#before, reply.status);
      this.#before = reply.status;
      return figures;
    } catch (error) {
      this.#before = undefined;
      throw error;
    }
  }
}

/** Calls `each` for every answer, or what is in its place, so often. Throws why the last of `times` was none. */
async function repeat(
  watch: Watch,
  { intervalMs, times }: { readonly intervalMs: number; readonly times: number },
  each: (figures: TopFigures | undefined, problem: string | undefined) => void,
  signal?: AbortSignal,
): Promise<void> {
  for (let round = 1; ; round++) {
    const next = performance.now() + intervalMs;
    try {
      each(await watch.look(), undefined);
    } catch (error) {
      each(undefined, messageOf(error));
      if (round >= times) throw error;
    }
    if (round >= times || signal?.aborted) return;
    try {
      await pause(Math.max(0, next - performance.now()), undefined, signal ? { signal } : {});
    } catch {
      return;
    }
  }
}

/** The whole of it, with the rates of one interval. */
async function printOnce(watch: Watch, intervalMs: number): Promise<void> {
  await watch.look();
  await pause(intervalMs);
  process.stdout.write(viewOnce(await watch.look()));
}

async function printLines(watch: Watch, intervalMs: number, times: number): Promise<void> {
  let printed = 0;
  let told: string | undefined;
  await repeat(watch, { intervalMs, times }, (figures, problem) => {
    if (figures) {
      if (printed++ % HEADING_EVERY === 0) process.stdout.write(`${LINE_HEADING}\n`);
      process.stdout.write(`${viewLine(figures)}\n`);
    } else if (problem !== told) {
      process.stderr.write(`headrace: ${problem}\n`);
    }
    told = problem;
  });
}

async function showLive(watch: Watch, intervalMs: number, times: number): Promise<void> {
  const quit = new AbortController();
  let state: ViewState = { figures: undefined, sort: "worker", reversed: false, paused: false, problem: undefined };
  const draw = (): void => screen.draw(viewTop(state, screen.room, screen.hasKeys));
  const key = (pressed: string): void => {
    const sort = SORTS[pressed as keyof typeof SORTS];
    if (pressed === "q") quit.abort();
    else if (pressed === "p") state = { ...state, paused: !state.paused };
    else if (sort) state = { ...state, sort, reversed: sort === state.sort && !state.reversed };
    draw();
  };
  const screen = new Screen(process.stdout, process.stdin, { key, resized: draw });
  screen.open();
  try {
    const onAnswer = (figures: TopFigures | undefined, problem: string | undefined): void => {
      if (state.paused) return;
      // What was seen last stays in view.
      const trying = problem === undefined ? undefined : `${problem} (trying again)`;
      state = { ...state, figures: figures ?? state.figures, problem: trying };
      draw();
    };
    await repeat(watch, { intervalMs, times }, onAnswer, quit.signal);
  } finally {
    screen.close();
  }
}

export function addTop(program: Command): void {
  addControlOption(program.command("top").description("watch the running server, live"))
    .option("--once", "print everything once, as text")
    .option("--interval <duration>", "time between two looks", "1s")
    .option("--count <n>", "end after so many looks")
    .addHelpText("after", HELP)
    .action(async ({ once = false, interval, count, control }: TopOptions) => {
      const intervalMs = readCount("--interval", interval, INTERVAL);
      const times = count === undefined ? Number.POSITIVE_INFINITY : readCount("--count", count, TIMES);
      const watch = new Watch(control === undefined ? {} : { control }, intervalMs);
      if (once) await printOnce(watch, intervalMs);
      else if (process.stdout.isTTY) await showLive(watch, intervalMs, times);
      else await printLines(watch, intervalMs, times);
    });
}
