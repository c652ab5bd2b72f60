/** How the control commands find the server and talk to it. */
import type { Command } from "commander";
import type { ControlClientOptions } from "../control/client.ts";
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

/** Where the server is, and as whom to talk to it. */
export async function controlClient({ control }: ControlOptions): Promise<ControlClientOptions> {
  const { peerOf } = await import("../os/descriptors.ts");
  const { defaultControlPath, ownUid } = await import("../primary/runtime-directory.ts");
  const uid = ownUid();
  const named = control ?? process.env.HEADRACE_CONTROL;
  const path = named || defaultControlPath(process.env, uid);
  return { path, peerOf, uid, named: Boolean(named) };
}

/** Throws `control-unreachable`, or `control-refused`, `busy` and `change-failed` in the server's words. */
export async function askServer(request: ControlRequest, options: ControlOptions): Promise<ControlReply> {
  const { requestControl } = await import("../control/client.ts");
  return requestControl(request, await controlClient(options));
}
