/**
 * Live connections go from one worker to another: descriptor, received and unsent bytes, counters, deadlines and the
 * service's state, without the peer noticing more than a pause.
 *
 * The invariant: at any moment at most one process reads or writes a connection, and as long as either of the two
 * lives, one of them will. So who has it changes at one point only: when the target's answer is in the channel.
 *
 *   source   hello ─ handOff ───────── batch, batch, … ───────────────── end
 *   target   hello ──────────  tookOver ──────────────── ack, ack, … ───────
 *
 * Where a connection is, and what happens to it there (src/connection/connection.ts has the steps in brackets):
 *
 *   open      in the source's engine. A request is in flight, or it has not been its turn yet.
 *   leaving   [leave] still there, but takes no new request. Ends when nothing is in flight. Goes back by [stay].
 *   away      [suspend] in no engine. Source and channel, or source and target, have its descriptor; nobody uses it.
 *   arriving  [arrive] in the target's engine, within one turn of its loop: nothing is read or written.
 *   here      [begin, gone] the answer is in the channel: the target's. The source closes its copy when it reads that.
 *
 * What can fail, and who has it then:
 *
 *   the service keeps it, or its state cannot be packed     source; it never left
 *   the target has no room, or `resume` throws              the answer says so: source [takeBack]
 *   the target dies or gives up before it answers           the source reads the end of the channel behind the last
 *                                                           answer: what is not answered is its own [takeBack]
 *   the target dies after it answered                       it is lost, as in any crash
 *   the source dies before the answer                       the answer cannot be sent: the target drops it [forget]
 *   the source dies after the answer                        target; the answer was in the channel
 *
 * The source never gives up by itself while batches are unanswered: only the end of the channel says that no answer
 * will come. A target that hangs is killed by its primary, and that ends the channel. Both sides work in slices, so
 * that nobody else's connections wait for long, and the source outside the engine's rounds.
 */
import { DEFAULT_SERVER_TIMEOUTS } from "../base/settings.ts";
import { MoveReceiver, type ReceiveOptions, type ReceiveOutcome } from "./migration-receiver.ts";
import { MoveSender, type SendOptions, type SendOutcome } from "./migration-sender.ts";

/**
 * Gives connections to the worker at the other end of `channel`, which is closed in the end. Those whose requests do
 * not end within `withinMs` stay, as do those that cannot move. Never rejects.
 */
export async function sendConnections(
  options: Omit<SendOptions, "withinMs"> & { readonly withinMs?: number },
): Promise<SendOutcome> {
  try {
    return await new MoveSender({ withinMs: DEFAULT_SERVER_TIMEOUTS.drain, ...options }).run();
  } catch (err) {
    options.log.error({ err }, "moving connections failed");
    return { moved: 0, kept: options.server.connections().length, cut: false };
  }
}

/** Takes connections from the worker at the other end of `channel`, which is closed in the end. Never rejects. */
export async function receiveConnections(options: ReceiveOptions): Promise<ReceiveOutcome> {
  try {
    return await new MoveReceiver(options).run();
  } catch (err) {
    options.log.error({ err }, "taking connections over failed");
    return { moved: 0 };
  }
}
