/**
 * The command line: one file per command, each of which adds itself here and loads what it needs only when it
 * runs, so that `--help` is quick. Whatever a command throws ends up as lines on stderr and an exit code:
 * 0 done, 1 failed, 2 bad configuration or usage, 75 busy.
 */
import { Command, CommanderError } from "commander";
import { EXIT, exitCodeOf, HeadraceError } from "../base/errors.ts";
import type { SignalInbox } from "../primary/signals.ts";
import { addBench } from "./bench.ts";
import { addCheck } from "./check.ts";
import { addConnections } from "./connections.ts";
import { addDoctor } from "./doctor.ts";
import { addDrain } from "./drain.ts";
import { addProfile } from "./profile.ts";
import { addReload } from "./reload.ts";
import { addRun } from "./run.ts";
import { addScale } from "./scale.ts";
import { addStatus } from "./status.ts";
import { addStop } from "./stop.ts";
import { addUpgrade } from "./upgrade.ts";
import { packageVersion } from "./version.ts";

/** What the commands share. */
export interface CommandContext {
  readonly version: string;
  /** For `run`: the handlers that are already installed. */
  readonly signals: SignalInbox | undefined;
}

const EXAMPLES = `
First steps:
  $ headrace run                         echo lines on 127.0.0.1:9000, frames on 127.0.0.1:9001
  $ headrace run ./game.js -l 0.0.0.0:7000
                                         your own service (a module that exports defineService({ … }))
  $ headrace check ./game.js             is the configuration right? does the service load?
  $ headrace status                      what the running server does
  $ headrace reload --wait               read the configuration again
  $ headrace upgrade --wait              hand over to the code now on disk
  $ headrace stop --wait                 finish what is in flight, then end

"headrace help COMMAND" says more about each.
Exit codes: 0 done, 1 failed, 2 bad configuration or usage, 75 busy (try again).`;

function createProgram(context: CommandContext): Command {
  const program = new Command("headrace")
    .description("A TCP and UDP server on many processes: one port, N workers, and the kernel spreads the clients.")
    .version(context.version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .addHelpText("after", EXAMPLES)
    .exitOverride()
    .configureOutput({
      outputError(text, write) {
        const line = text
          .trim()
          .replace(/^error: /, "")
          .replace(/\.$/, "")
          .replaceAll(/\s*\n\s*/g, " ");
        write(`headrace: ${line}; see headrace --help\n`);
      },
    });
  const commands = [
    addRun,
    addCheck,
    addDoctor,
    addStatus,
    addConnections,
    addProfile,
    addReload,
    addUpgrade,
    addScale,
    addDrain,
    addStop,
    addBench,
  ];
  for (const add of commands) add(program, context);
  return program;
}

/** Runs a command. Returns the exit code. */
export async function main(args: readonly string[], signals: SignalInbox | undefined): Promise<number> {
  // `headrace … | head` is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
  try {
    await createProgram({ version: packageVersion(), signals }).parseAsync(args, { from: "user" });
    return EXIT.done;
  } catch (error) {
    // Commander has printed its own.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    process.stderr.write(describe(error));
    return exitCodeOf(error);
  }
}

/** A known error is one line per fault; anything else is a bug, and its stack is wanted. */
function describe(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "EMFILE" || code === "ENFILE") {
    return "headrace: no file descriptor is left to start with; raise the limit (ulimit -n, LimitNOFILE)\n";
  }
  if (!(error instanceof HeadraceError)) return `${error instanceof Error ? error.stack : String(error)}\n`;
  return error.message
    .split("\n")
    .map((line) => `headrace: ${line}\n`)
    .join("");
}
