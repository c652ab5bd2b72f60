/**
 * What a command that waits shows meanwhile: on a terminal one line on stderr that is rewritten, without one and with
 * --verbose a plain line for each new step, else nothing, since scripts read what a command prints. It asks the server's
 * status beside the command's own connection, and whatever is wrong with that is not its business.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { ServerStatus } from "../control/status.ts";
import { askServer, type ControlOptions } from "./control.ts";

export interface ProgressOptions extends ControlOptions {
  readonly verbose?: boolean;
}

/** One line; undefined when there is nothing to say. It is asked again and again, of one command. */
type Describe = (status: ServerStatus) => string | undefined;

const POLL_MS = 250;
/** What is over sooner needs no line. */
const PATIENCE_MS = 1_000;
/** Who is busy with a change may take his time, but not the command's. */
const ANSWER_MS = 2_000;
const CLEAR = "\r\u001b[K";
const NARROW = 80;

interface Screen {
  show(text: string, ms: number): void;
  clear(): void;
}

function terminal(): Screen {
  let shown = false;
  return {
    show(text, ms) {
      if (ms < PATIENCE_MS) return;
      const line = `${text}, ${Math.floor(ms / 1_000)} s`;
      // A line that wraps could not be rewritten.
      process.stderr.write(CLEAR + line.slice(0, (process.stderr.columns || NARROW) - 1));
      shown = true;
    },
    clear() {
      if (shown) process.stderr.write(CLEAR);
    },
  };
}

function plain(): Screen {
  let last = "";
  return {
    show(text) {
      if (text !== last) process.stderr.write(`${text}\n`);
      last = text;
    },
    clear() {},
  };
}

async function follow(describe: Describe, screen: Screen, control: ControlOptions, over: AbortSignal): Promise<void> {
  const from = performance.now();
  while (!over.aborted) {
    const reply = await askServer({ type: "status" }, control, ANSWER_MS).catch(() => undefined);
    const text = reply?.type === "status" ? describe(reply.status) : undefined;
    if (over.aborted) return;
    if (text !== undefined) screen.show(text, performance.now() - from);
    await pause(POLL_MS, undefined, { signal: over }).catch(() => {});
  }
}

/** What `work` comes to, and until then what goes on. */
export async function withProgress<T>(
  work: Promise<T>,
  describe: Describe,
  { verbose = false, control }: ProgressOptions,
): Promise<T> {
  if (!process.stderr.isTTY && !verbose) return work;
  const screen = process.stderr.isTTY ? terminal() : plain();
  const over = new AbortController();
  void follow(describe, screen, control === undefined ? {} : { control }, over.signal);
  try {
    return await work;
  } finally {
    over.abort();
    screen.clear();
  }
}

/** Of a change: "reload: replacing workers, 1 of 4". */
export function describeChange({ lastChange }: ServerStatus): string | undefined {
  if (lastChange?.outcome !== "running") return undefined;
  const { kind, step } = lastChange;
  return step ? `${kind}: ${step.what}, ${step.done} of ${step.of}` : kind;
}

/** Of a stop: who has gone, of those that were there when it was first asked. */
export function describeStop(): Describe {
  let most = 0;
  return ({ workers, draining, totals }) => {
    const left = workers.length + draining.length;
    most = Math.max(most, left);
    return `stop: ${most - left} of ${most} workers have ended, ${totals.open} open connections`;
  };
}
