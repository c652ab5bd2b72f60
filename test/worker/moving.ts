/** Two workers in one process, and connections that go from one to the other and back. */
import { pino } from "pino";
import { openChannel } from "#src/os/descriptors.js";
import { receiveConnections, sendConnections } from "#src/worker/migration.js";
import type { SendOptions, SendOutcome } from "#src/worker/migration-sender.js";
import type { Serving } from "../support/serving.js";

const log = pino({ level: "silent" });

export type MoveChoice = Partial<Pick<SendOptions, "most" | "handOff" | "withinMs" | "log">>;

/** Moves all connections, or as chosen. */
export async function move(
  from: Serving,
  to: Serving,
  choice: MoveChoice = {},
): Promise<SendOutcome & { arrived: number }> {
  const [there, here] = openChannel();
  const receiving = receiveConnections({ channel: there, server: to.server, log });
  const sent = await sendConnections({ channel: here, server: from.server, log, handOff: true, ...choice });
  const { moved } = await receiving;
  return { ...sent, arrived: moved };
}
