/** `headrace scale`: more or fewer workers. */
import type { Command } from "commander";
import { addChangeOptions, type ChangeOptions, requestChange } from "./change.ts";
import { readCount } from "./count.ts";

const HELP = `
New workers receive a fair share of the long connections (unless migration.rebalance is false). Those that go hand
theirs to the ones that stay; what would not fit there is refused before anything happens. Holds through upgrades, until a
restart or a configuration with another number of workers.
The signals TTIN and TTOU add and remove one.

Examples:
  $ headrace scale 8
  $ headrace scale 1 --wait`;

export function addScale(program: Command): void {
  addChangeOptions(program.command("scale").description("change the number of workers, without disconnecting anybody"))
    .argument("<workers>", "how many there are to be: 1 to 256")
    .addHelpText("after", HELP)
    .action(async (given: string, { wait = false, ...options }: ChangeOptions) => {
      const { WORKER_COUNT_KIND } = await import("../config/bounds.ts");
      const workers = readCount("scale", given, WORKER_COUNT_KIND);
      await requestChange({ type: "scale", wait, workers }, options, `scaling to ${workers}`);
    });
}
