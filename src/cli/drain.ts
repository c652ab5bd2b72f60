/** `headrace drain`: one worker is replaced, and its connections move. */
import type { Command } from "commander";
import { addChangeOptions, type ChangeOptions, requestChange } from "./change.ts";
import { readCount } from "./count.ts";

const HELP = `
A fresh process takes the worker's place and its connections; the old one ends when it has none left, or at
timeouts.drain. For a worker that has grown too large, or behaves oddly.

Examples:
  $ headrace status          which worker it is
  $ headrace drain 1 --wait`;

export function addDrain(program: Command): void {
  addChangeOptions(program.command("drain").description("replace one worker, and move its connections to the new one"))
    .argument("<worker>", "its number, as status shows it")
    .addHelpText("after", HELP)
    .action(async (given: string, { wait = false, ...options }: ChangeOptions) => {
      const { WORKER_KIND } = await import("../config/bounds.ts");
      const worker = readCount("drain", given, WORKER_KIND);
      await requestChange({ type: "drain", wait, worker }, options, `draining worker ${worker}`);
    });
}
