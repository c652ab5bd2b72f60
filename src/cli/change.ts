/** What the commands that change a running server share: they ask, and print one line. */
import type { Command } from "commander";
import type { ChangeRequest } from "../control/protocol.ts";
import { addControlOption, askServer, type ControlOptions } from "./control.ts";

export interface ChangeOptions extends ControlOptions {
  readonly wait?: boolean;
}

export function addChangeOptions(command: Command): Command {
  return addControlOption(command).option("--wait", "return only when it is done; exit code 1 when it failed");
}

/**
 * Prints what the server did, or `begun` when nobody waits for it.
 * Throws `busy` while another change goes on, `change-failed` and `control-refused` with the server's reason.
 */
export async function requestChange(request: ChangeRequest, { control }: ChangeOptions, begun: string): Promise<void> {
  const reply = await askServer(request, control === undefined ? {} : { control });
  process.stdout.write(`${reply.type === "done" ? reply.message : begun}\n`);
}
