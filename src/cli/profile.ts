/** `headrace profile`: what a worker, or the primary, spends its time or its memory on, into a file. */
import { createWriteStream, existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { finished } from "node:stream/promises";
import type { Command } from "commander";
import { HeadraceError } from "../base/errors.ts";
import { PROFILE_SECONDS, type ProfileKind, type ProfileTarget } from "../control/inspection.ts";
import { addControlOption, type ControlOptions, controlClient } from "./control.ts";
import { showBytes } from "./table.ts";

interface ProfileOptions extends ControlOptions {
  readonly worker?: string;
  readonly seconds?: string;
  readonly out?: string;
  readonly force?: boolean;
}

const HELP = `
cpu   samples for some seconds, while the server serves. Open the file in Chrome's DevTools (Performance), or speedscope.
heap  everything that is in memory now. The worker answers nobody while it is taken, about a second for every 100 MiB;
      others serve newcomers meanwhile, and it is not taken for one that hangs. The file holds what clients have sent.

One profile at a time: another is refused with exit code 75. The file is readable by you alone.

Examples:
  $ headrace profile cpu --worker 0 --seconds 20 --out busy.cpuprofile
  $ headrace profile heap --worker 1
  $ headrace profile cpu --worker primary`;

const KINDS: readonly ProfileKind[] = ["cpu", "heap"];
const PROGRESS_MS = 1_000;

function usage(option: string, problem: string): HeadraceError {
  return new HeadraceError("usage", `${option}: ${problem}`, { option });
}

function targetOf(given = "0"): ProfileTarget {
  if (given === "primary") return given;
  if (/^\d{1,3}$/.test(given)) return Number(given);
  throw usage("--worker", `${JSON.stringify(given)} is neither a worker's number nor "primary"`);
}

function secondsOf(kind: ProfileKind, given: string | undefined): number {
  if (kind === "heap") return 0;
  const seconds = given === undefined ? PROFILE_SECONDS : /^\d{1,2}$/.test(given) ? Number(given) : 0;
  if (seconds >= 1 && seconds <= 60) return seconds;
  throw usage("--seconds", `${JSON.stringify(given)} is not a whole number from 1 to 60`);
}

/** On stderr, each second from the first on; on a terminal in one line. Returns what ends it. */
function showProgress(what: string, total: number): () => void {
  const { stderr } = process;
  const started = performance.now();
  const timer = setInterval(() => {
    const seconds = Math.round((performance.now() - started) / 1_000);
    const of = total > 0 ? ` of ${total}` : "";
    const text = `${what}: ${seconds}${of} s`;
    stderr.write(stderr.isTTY ? `\r${text}` : `${text}\n`);
  }, PROGRESS_MS);
  return () => {
    clearInterval(timer);
    if (stderr.isTTY) stderr.write("\r\u001b[K");
  };
}

async function takeProfile(given: string, options: ProfileOptions): Promise<void> {
  const kind = KINDS.find((each) => each === given);
  if (!kind) throw usage("kind", `${JSON.stringify(given)} is not known; allowed: ${KINDS.join(", ")}`);
  const [target, seconds] = [targetOf(options.worker), secondsOf(kind, options.seconds)];
  const who = target === "primary" ? target : `worker-${target}`;
  const out = options.out ?? `headrace-${who}.${kind === "cpu" ? "cpuprofile" : "heapsnapshot"}`;
  // Before anything is taken; opening it asks again, for good.
  if (!options.force && existsSync(out)) throw existing(out);
  const { requestProfile } = await import("../control/client.ts");
  const client = await controlClient(options);
  const end = showProgress(`${kind} profile of ${who}`, seconds);
  let bytes = 0;
  try {
    if (options.force) await rm(out, { force: true });
    const file = createWriteStream(out, { flags: "wx", mode: 0o600 });
    const written = finished(file);
    try {
      await requestProfile({ type: "profile", kind, target, seconds }, client, (reply) => {
        bytes = reply.bytes;
        return file;
      });
      file.end();
      await written;
    } catch (error) {
      file.destroy();
      const failure = await written.then(
        () => undefined,
        (reason: NodeJS.ErrnoException) => reason,
      );
      if (failure?.code === "EEXIST") throw existing(out);
      await rm(out, { force: true });
      throw error;
    }
  } finally {
    end();
  }
  process.stdout.write(`${out}: ${showBytes(bytes)}\n`);
}

function existing(out: string): HeadraceError {
  return usage("--out", `${out} exists already; choose another file, or pass --force`);
}

export function addProfile(program: Command): void {
  addControlOption(program.command("profile").description("take a CPU profile or a heap snapshot"))
    .argument("<kind>", "cpu or heap")
    .option("--worker <n>", "which worker, or primary (default: 0)")
    .option("--seconds <s>", "how long a CPU profile takes, 1 to 60 (default: 10)")
    .option("--out <file>", "where it goes (default: headrace-worker-N.cpuprofile or .heapsnapshot here)")
    .option("--force", "replace the file if it exists")
    .addHelpText("after", HELP)
    .action(takeProfile);
}
