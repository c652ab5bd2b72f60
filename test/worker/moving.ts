/** Two workers in one process, and connections that go from one to the other and back. */
import { setTimeout as pause } from "node:timers/promises";
import { pino } from "pino";
import { closeDescriptor, openChannel, receiveMessage, sendMessage } from "#src/os/descriptors.js";
import { receiveConnections, sendConnections } from "#src/worker/migration.js";
import { PROTOCOL, summaryOf } from "#src/worker/migration-messages.js";
import type { SendOptions, SendOutcome } from "#src/worker/migration-sender.js";
import type { Serving } from "../support/serving.js";
import { until } from "../support/until.js";

/** How long a worker that is to die waits for messages, ms. */
const PATIENCE_MS = 20;

const log = pino({ level: "silent" });

export type MoveChoice = Partial<Pick<SendOptions, "most" | "handOff" | "withinMs" | "log">>;

/** Moves all connections, or as chosen. */
export async function move(
  from: Serving,
  to: Serving,
  choice: MoveChoice = {},
): Promise<SendOutcome & { readonly arrived: number }> {
  const [there, here] = openChannel();
  const receiving = receiveConnections({ channel: there, server: to.server, log });
  const sent = await sendConnections({ channel: here, server: from.server, log, handOff: true, ...choice });
  const { moved } = await receiving;
  return { ...sent, arrived: moved };
}

/** One end of a channel in a test's hand. */
export class Hand {
  readonly fd: number;
  /** Descriptors that came and were not closed. */
  readonly fds: number[] = [];
  readonly #into = Buffer.alloc(1 << 16);
  gone = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  send(message: object, fds: readonly number[] = []): "sent" | "full" | "gone" {
    return sendMessage(this.fd, Buffer.from(JSON.stringify(message)), fds);
  }

  /** The next message with its descriptors, which `close` closes, if one is there. */
  poll(): (Record<string, unknown> & { readonly fds: readonly number[] }) | undefined {
    const received = receiveMessage(this.fd, this.#into);
    if (received === "empty") return undefined;
    if (received === "gone") {
      this.gone = true;
      return undefined;
    }
    this.fds.push(...received.fds);
    return { ...JSON.parse(this.#into.toString("utf8", 0, received.length)), fds: received.fds };
  }

  /** The next message, once there is one. */
  receive(): Promise<Record<string, unknown> & { readonly fds: readonly number[] }> {
    return until("a message", () => this.poll());
  }

  close(): void {
    for (const fd of this.fds.splice(0)) closeDescriptor(fd);
    closeDescriptor(this.fd);
  }
}

/** What a worker like `serving` says first. */
export function helloOf(serving: Serving, room = 1_000): object {
  return { type: "hello", version: PROTOCOL, endpoints: serving.server.endpoints.map(summaryOf), room };
}

/** Begins to move all connections, to a worker that dies without an answer, when it has got so many messages or soon. */
export async function breakOff(
  from: Serving,
  { after, withinMs }: { readonly after: number; readonly withinMs: number },
): Promise<SendOutcome> {
  const [there, here] = openChannel();
  const sending = sendConnections({ channel: here, server: from.server, log, handOff: true, withinMs });
  const hand = new Hand(there);
  if (after > 0) hand.send(helloOf(from));
  const started = performance.now();
  for (let count = 0; count < after && !hand.gone && performance.now() - started < PATIENCE_MS; await pause(1)) {
    if (hand.poll()) count += 1;
  }
  hand.close();
  return sending;
}

/** What `work` gives, and the longest that the event loop stood still meanwhile, ms. */
export async function withLag<T>(work: () => Promise<T>): Promise<{ readonly value: T; readonly longest: number }> {
  let last = performance.now();
  let longest = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  try {
    const value = await work();
    return { value, longest: Math.max(longest, performance.now() - last) };
  } finally {
    clearInterval(timer);
  }
}
