/** `headrace stop`: asks the running server to end. */
import type { Command } from "commander";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";
import { describeStop, withProgress } from "./progress.ts";

interface StopOptions extends ControlOptions {
  readonly wait?: boolean;
  readonly fast?: boolean;
  readonly verbose?: boolean;
}

const HELP = `
Examples:
  $ headrace stop            asks, and returns at once
  $ headrace stop --wait     returns when the server has gone, exit code 0
  $ headrace stop --fast     cuts every connection off`;

export function addStop(program: Command): void {
  addControlOption(program.command("stop").description("stop the running server gracefully"))
    .option("--wait", "return only when it has gone")
    .option("--fast", "do not wait for what is in flight")
    .option("--verbose", "with --wait: say each step on stderr, also where that is no terminal")
    .addHelpText("after", HELP)
    .action(async ({ wait = false, fast = false, ...options }: StopOptions) => {
      const { control } = options;
      const asked = askServer({ type: "stop", wait, fast }, control === undefined ? {} : { control });
      const reply = await (wait ? withProgress(asked, describeStop(), options) : asked);
      if (reply.type === "stopped") {
        process.stdout.write(`stopped: ${reply.closed} connections closed, ${reply.forced} cut off\n`);
      } else {
        process.stdout.write("stopping\n");
      }
    });
}
