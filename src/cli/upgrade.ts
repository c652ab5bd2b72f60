/** `headrace upgrade`: a new primary from the code now on disk takes over from the running one. */
import type { Command } from "commander";
import { addChangeOptions, type ChangeOptions, requestChange } from "./change.ts";

const HELP = `
Starts the server's own command again (the same program, arguments and working directory, symbolic links resolved
afresh), hands it every socket, and moves the connections once the new one has served for timeouts.prove. A release
that does not start, or ends before that, is rolled back: the old one never stopped serving. Needs the memory of
both while it lasts. The signal USR2 does the same.

Examples:
  $ ln -sfn releases/v2 /srv/game/current && headrace upgrade --wait
  $ npm install -g headrace@latest && headrace upgrade --wait`;

export function addUpgrade(program: Command): void {
  addChangeOptions(
    program.command("upgrade").description("hand over to the code now on disk, without disconnecting anybody"),
  )
    .addHelpText("after", HELP)
    .action(async ({ wait = false, ...options }: ChangeOptions) => {
      await requestChange({ type: "upgrade", wait }, options, "upgrading");
    });
}
