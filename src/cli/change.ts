/** What the commands that change a running server share: they ask, say meanwhile what goes on, and print one line. */
import type { Command } from "commander";
import type { ChangeRequest } from "../control/protocol.ts";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";
import { describeChange, withProgress } from "./progress.ts";

export interface ChangeOptions extends ControlOptions {
  readonly wait?: boolean;
  readonly verbose?: boolean;
}

export function addChangeOptions(command: Command): Command {
  return addControlOption(command)
    .option("--wait", "return only when it is done; exit code 1 when it failed")
    .option("--verbose", "with --wait: say each step on stderr, also where that is no terminal");
}

/**
 * Prints what the server did, or `begun` when nobody waits for it.
 * Throws `busy` while another change goes on, `change-failed` and `control-refused` with the server's reason.
 */
export async function requestChange(request: ChangeRequest, options: ChangeOptions, begun: string): Promise<void> {
  const { control } = options;
  const asked = askServer(request, control === undefined ? {} : { control });
  const reply = await (request.wait ? withProgress(asked, describeChange, options) : asked);
  process.stdout.write(`${reply.type === "done" ? reply.message : begun}\n`);
}
