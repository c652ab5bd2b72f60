/** `headrace reload`: the running server reads its configuration again. */
import type { Command } from "commander";
import { addChangeOptions, type ChangeOptions, requestChange } from "./change.ts";

interface ReloadOptions extends ChangeOptions {
  readonly replace?: boolean;
}

const HELP = `
What can change in place does, at once: limits, timeouts, socket options, the log level. For the rest (services,
listeners) each worker is replaced in turn, and its connections move to the new one; nobody is disconnected.
"headrace check --reference" says for each option which it is. If anything is wrong, nothing changes.
The services' code is that of the release the server was started with: "headrace upgrade" takes a new one.
The signal HUP does the same as "headrace reload".

Examples:
  $ headrace check && headrace reload --wait
  $ headrace reload --replace --wait    new workers even if nothing in the configuration asks for them`;

export function addReload(program: Command): void {
  addChangeOptions(program.command("reload").description("read the configuration again, without disconnecting anybody"))
    .option("--replace", "replace every worker, whatever has changed")
    .addHelpText("after", HELP)
    .action(async ({ wait = false, replace = false, ...options }: ReloadOptions) => {
      await requestChange({ type: "reload", wait, replace }, options, "reloading");
    });
}
