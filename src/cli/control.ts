/** How the control commands find the server and talk to it. */
import type { Command } from "commander";
import type { ControlReply, ControlRequest } from "../control/protocol.ts";

export interface ControlOptions {
  readonly control?: string;
}

export function addControlOption(command: Command): Command {
  return command.option(
    "--control <path>",
    "the server's control socket (default: HEADRACE_CONTROL, else the runtime directory)",
  );
}

/** Throws `control-unreachable`, or `control-refused`, `busy` and `change-failed` in the server's words. */
export async function askServer(
  request: ControlRequest,
  { control }: ControlOptions,
  timeoutMs?: number,
): Promise<ControlReply> {
  const { requestControl } = await import("../control/client.ts");
  const { peerOf } = await import("../os/descriptors.ts");
  const { defaultControlPath, ownUid } = await import("../primary/runtime-directory.ts");
  const uid = ownUid();
  const named = control ?? process.env.HEADRACE_CONTROL;
  const path = named || defaultControlPath(process.env, uid);
  const deadline = timeoutMs === undefined ? {} : { timeoutMs };
  return requestControl(request, { path, peerOf, uid, named: Boolean(named), ...deadline });
}
