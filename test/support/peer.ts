/** A TCP peer by node:net: says what it received and how it ended. Half-open, so that each side's FIN is its own. */
import { once } from "node:events";
import { readSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { until } from "./until.js";

export class Peer {
  readonly socket: Socket;
  readonly #chunks: Buffer[] = [];
  /** The other side's FIN came. */
  ended = false;
  /** Code of the error that ended it. */
  error: string | undefined;
  closed = false;
  length = 0;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.length += chunk.length;
    });
    socket.on("end", () => {
      this.ended = true;
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.error = error.code;
    });
    socket.on("close", () => {
      this.closed = true;
    });
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get text(): string {
    return this.bytes.toString("latin1");
  }

  write(bytes: Uint8Array | string): void {
    this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  }

  /** FIN. */
  end(): void {
    this.socket.end();
  }

  /** RST. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  /**
   * Of one that was opened `paused` and never resumed: takes at most so many bytes out of the kernel's buffer, and thinks
   * nothing of it. `socket.read` would not do: node:net fills a buffer of its own first, and the window opens.
   */
  take(bytes: number): number {
    const { _handle } = this.socket as unknown as { readonly _handle: { readonly fd: number } | null };
    try {
      return _handle ? readSync(_handle.fd, Buffer.allocUnsafe(bytes)) : 0;
    } catch {
      // Nothing there, or reset: whoever asks looks at the server.
      return 0;
    }
  }

  receives(length: number): Promise<true> {
    return until(`${length} bytes (${this.length} came)`, () => this.length >= length || undefined);
  }
}

/** Connects. Destroyed when the test ends. `paused`: reads nothing until `socket.resume()`. */
export async function openPeer(t: TestContext, port: number, options: { paused?: boolean } = {}): Promise<Peer> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  t.after(() => socket.destroy());
  const peer = new Peer(socket);
  if (options.paused) socket.pause();
  await once(socket, "connect");
  return peer;
}

/** Connects from an address of 127.0.0.0/8. It may be reset before it knows that it is connected. */
export async function attemptPeer(t: TestContext, port: number, localAddress = "127.0.0.1"): Promise<Peer> {
  const socket = connect({ port, host: "127.0.0.1", localAddress, allowHalfOpen: true, noDelay: true });
  t.after(() => socket.destroy());
  const peer = new Peer(socket);
  await until("a connection, or its end", () => !socket.connecting || peer.closed);
  return peer;
}
