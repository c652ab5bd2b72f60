/** `headrace stop`: asks the running server to end. */
import type { Command } from "commander";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";

interface StopOptions extends ControlOptions {
  readonly wait?: boolean;
  readonly fast?: boolean;
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
    .addHelpText("after", HELP)
    .action(async ({ wait = false, fast = false, control }: StopOptions) => {
      const reply = await askServer({ type: "stop", wait, fast }, control === undefined ? {} : { control });
      if (reply.type === "stopped") {
        process.stdout.write(`stopped: ${reply.closed} connections closed, ${reply.forced} cut off\n`);
      } else {
        process.stdout.write("stopping\n");
      }
    });
}
