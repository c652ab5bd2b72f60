/**
 * Where log lines go: a descriptor, written in the background by Node's thread pool, so that a reader that is slow
 * or has stopped never holds up the event loop. What waits for it is bounded. When the process exits the rest is
 * written, unless nobody has read for a second or the reader has gone.
 *
 * pino's own destination is not used because its flush at exit goes on forever once the reader has gone.
 */
import { write, writeSync } from "node:fs";

/** A pipe takes up to PIPE_BUF (pipe(7): 4096) bytes as a whole, so lines of several processes stay apart. */
const CHUNK_BYTES = 4096;
/** What may wait. Lines past it are dropped; how many says a line of its own once there is room. */
const WAITING_BYTES = 4 * 1024 * 1024;
/** The descriptor is non-blocking and full: tried again after this. */
const RETRY_MS = 20;
const PATIENCE_MS = 1_000;
const WARN = 40;

const nobody = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

export class LogStream {
  readonly #fd: number;
  #state: "idle" | "writing" | "retrying" | "closed" = "idle";
  /** Whole lines, and first of all what a partial write has left. */
  readonly #chunks: Buffer[] = [];
  #tail = "";
  #tailBytes = 0;
  #waitingBytes = 0;
  #dropped = 0;
  /** When the kernel last took something, or was first asked to; 0 before that. */
  #progressAt = 0;
  #onIdle: () => void = () => {};

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Takes one line, with its end. Called by pino. */
  write(line: string): void {
    if (this.#state === "closed") return;
    const bytes = Buffer.byteLength(line);
    if (this.#waitingBytes + bytes > WAITING_BYTES) {
      this.#dropped++;
      return;
    }
    if (this.#tailBytes + bytes > CHUNK_BYTES) this.#cut();
    this.#tail += line;
    this.#tailBytes += bytes;
    this.#waitingBytes += bytes;
    if (this.#state !== "idle") return;
    if (this.#progressAt === 0) process.once("exit", () => this.#finish());
    this.#progressAt = Date.now();
    this.#next();
  }

  /**
   * Resolves when everything is written (`true`) or given up. Nothing can be logged any more then. After `false` a
   * write may be stuck in the thread pool, which a regular exit would wait for.
   */
  close(): Promise<boolean> {
    if (this.#state === "idle" || this.#state === "closed") {
      this.#giveUp();
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const late = setTimeout(() => {
        this.#onIdle = () => {};
        this.#giveUp();
        resolve(false);
      }, PATIENCE_MS);
      this.#onIdle = () => {
        clearTimeout(late);
        this.#giveUp();
        resolve(true);
      };
    });
  }

  /** Makes a chunk of the lines in the tail. */
  #cut(): void {
    if (this.#tail === "") return;
    this.#chunks.push(Buffer.from(this.#tail));
    this.#tail = "";
    this.#tailBytes = 0;
  }

  #next(): void {
    if (this.#state === "closed") return;
    if (this.#chunks.length === 0) this.#cut();
    const [chunk] = this.#chunks;
    if (!chunk) {
      this.#state = "idle";
      this.#onIdle();
      return;
    }
    this.#state = "writing";
    write(this.#fd, chunk, 0, chunk.length, null, (error, written) => {
      if (this.#state === "closed") return;
      if (error?.code === "EAGAIN") {
        this.#state = "retrying";
        setTimeout(() => this.#next(), RETRY_MS);
      } else if (error) {
        this.#giveUp();
      } else {
        this.#took(written);
        this.#next();
      }
    });
  }

  #took(bytes: number): void {
    this.#progressAt = Date.now();
    this.#waitingBytes -= bytes;
    const rest = this.#chunks[0]?.subarray(bytes);
    if (rest?.length) this.#chunks[0] = rest;
    else this.#chunks.shift();
    if (this.#dropped === 0 || this.#waitingBytes > WAITING_BYTES / 2) return;
    const msg = `${this.#dropped} log lines were dropped: nobody read them in time`;
    this.#dropped = 0;
    this.write(`${JSON.stringify({ level: WARN, time: Date.now(), pid: process.pid, msg })}\n`);
  }

  #giveUp(): void {
    const waited = this.#state !== "closed" && this.#state !== "idle";
    this.#state = "closed";
    this.#chunks.length = 0;
    this.#tail = "";
    if (waited) this.#onIdle();
  }

  /** At exit there is no event loop. A write in the thread pool is completed by exit itself. */
  #finish(): void {
    const giveUpAt = this.#progressAt + PATIENCE_MS;
    if (this.#state === "closed" || (this.#state === "writing" && Date.now() > giveUpAt)) return;
    this.#cut();
    if (this.#state === "writing") this.#chunks.shift();
    try {
      while (this.#chunks[0]) {
        try {
          this.#took(writeSync(this.#fd, this.#chunks[0]));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "EAGAIN" || Date.now() > giveUpAt) return;
          Atomics.wait(nobody, 0, 0, RETRY_MS);
        }
      }
    } finally {
      this.#state = "closed";
    }
  }
}
