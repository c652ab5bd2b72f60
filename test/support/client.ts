/** A plain TCP client that speaks lines. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { within } from "./until.js";

export class LineClient {
  readonly socket: Socket;
  /** Settles when the connection has ended: an errno, or nothing when it ended in order. */
  readonly closed: Promise<string | undefined>;
  #received = "";

  constructor(socket: Socket) {
    this.socket = socket;
    let errno: string | undefined;
    socket.setEncoding("utf8").on("data", (chunk: string) => {
      this.#received += chunk;
      socket.emit("text");
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      errno = error.code;
    });
    this.closed = new Promise((resolve) => socket.once("close", () => resolve(errno)));
  }

  send(line: string): void {
    this.socket.write(`${line}\n`);
  }

  /** The next line. */
  async line(): Promise<string> {
    while (!this.#received.includes("\n")) {
      const ended = this.closed.then((errno) => {
        if (!this.#received.includes("\n")) throw new Error(`closed (${errno ?? "in order"}) instead of a line`);
      });
      await within("a line", Promise.race([once(this.socket, "text"), ended]));
    }
    const end = this.#received.indexOf("\n");
    const line = this.#received.slice(0, end);
    this.#received = this.#received.slice(end + 1);
    return line;
  }

  /** Sends a line and reads one. */
  ask(line: string): Promise<string> {
    this.send(line);
    return this.line();
  }
}

/** Connects; rejects with the errno when that fails. Closed when the test ends. */
export async function openClient(t: TestContext, port: number, host = "127.0.0.1"): Promise<LineClient> {
  const socket = connect(port, host);
  t.after(() => socket.destroy());
  const client = new LineClient(socket);
  await once(socket, "connect");
  return client;
}
