/**
 * Where log lines go: a descriptor, written in the background by Node's thread pool, so that a reader that is slow
 * or has stopped, or a disk that is full, never holds up the event loop. What waits for it is bounded. When the process
 * exits the rest is written, unless nobody has read for a second or the reader has gone.
 *
 *   idle ──► writing ◄──► retrying (nobody reads; no room)      ──► closed (the reader has gone; close(); exit)
 *
 * Another descriptor takes over between two lines, never within one: so a file that is rotated ends with a whole line
 * and the next begins with one. Where a shortage has torn a line, its rest is dropped and the next line begins anew.
 *
 * pino's own destination is not used because its flush at exit goes on forever once the reader has gone.
 */
import { closeSync, write, writeSync } from "node:fs";
import { journalPrefix } from "./journal.ts";
import { endsInLine } from "./log-file.ts";

/** A pipe takes up to PIPE_BUF (pipe(7): 4096) bytes as a whole, so lines of several processes stay apart. */
const CHUNK_BYTES = 4096;
/** What may wait. Lines past it are dropped; how many says a line of its own once there is room. */
const WAITING_BYTES = 4 * 1024 * 1024;
/** The descriptor is non-blocking and full: tried again after this. */
const RETRY_MS = 20;
/** There is no room on the disk: tried again after this. */
const SHORTAGE_RETRY_MS = 1_000;
const PATIENCE_MS = 1_000;
const WARN = 40;
const NEWLINE = 0x0a;
/** Nobody will ever read again. All else that may go wrong is taken for a shortage: it may end. */
const GONE: ReadonlySet<string | undefined> = new Set(["EPIPE", "ECONNRESET", "ENOTCONN", "EBADF", "EINVAL"]);

const nobody = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

interface Shortage {
  readonly errno: string;
  /** Date.now() */
  readonly since: number;
}

export interface LogStreamOptions {
  /** Put the priority in front of each line, for the journal. */
  readonly journal?: boolean;
  /** Makes of each line what is written instead, with its end; not with `journal`. */
  readonly format?: (line: string) => string;
  /** The descriptor is closed when another takes its place. */
  readonly owned?: boolean;
}

/** In front of a line, which is one JSON object without a line break in it. */
const PREFIX = /^<\d>/gm;

/** pino begins each line with its level. */
const levelOf = (line: string): number => Number(line.slice('{"level":'.length, line.indexOf(",")));

export class LogStream {
  #fd: number;
  #owned: boolean;
  #journal: boolean;
  readonly #format: ((line: string) => string) | undefined;
  /** Takes over between two lines. */
  #successor: number | undefined;
  #state: "idle" | "writing" | "retrying" | "closed" = "idle";
  #retry: NodeJS.Timeout | undefined;
  /** Whole lines, and first of all what a partial write has left. */
  readonly #chunks: Buffer[] = [];
  /** The first chunk begins within a line. */
  #torn = false;
  #tail = "";
  #tailBytes = 0;
  #waitingBytes = 0;
  #shortage: Shortage | undefined;
  /** The last line there may be unfinished. */
  #mends = false;
  #dropped = 0;
  #droppedSaid = 0;
  /** When the kernel last took something, or was first asked to; 0 before that. */
  #progressAt = 0;
  #onIdle: () => void = () => {};

  constructor(fd: number, { journal = false, format, owned = false }: LogStreamOptions = {}) {
    this.#fd = fd;
    this.#journal = journal;
    this.#format = format;
    this.#owned = owned;
  }

  /** Lines that were lost so far: there was no room for them, or nobody to read them. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes one line, with its end. Called by pino. */
  write(given: string): void {
    const line = this.#lineOf(given);
    const bytes = Buffer.byteLength(line);
    if (this.#state === "closed" || this.#waitingBytes + bytes > WAITING_BYTES) {
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

  /** Lines go to `fd`, which is this stream's from now on, as soon as the one that is being written is whole. */
  moveTo(fd: number): void {
    if (this.#successor !== undefined) closeSync(this.#successor);
    this.#successor = fd;
    if (this.#state === "writing") return;
    clearTimeout(this.#retry);
    if (this.#torn) this.#dropRest();
    this.#changeOver();
    if (this.#state === "retrying") this.#next();
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

  #lineOf(given: string): string {
    if (this.#journal) return journalPrefix(levelOf(given)) + given;
    return this.#format ? this.#format(given) : given;
  }

  /** Makes a chunk of the lines in the tail. */
  #cut(): void {
    if (this.#tail === "") return;
    this.#chunks.push(Buffer.from(this.#tail));
    this.#tail = "";
    this.#tailBytes = 0;
  }

  #changeOver(): void {
    if (this.#successor === undefined) return;
    if (this.#owned) closeSync(this.#fd);
    this.#fd = this.#successor;
    this.#owned = true;
    this.#successor = undefined;
    // Nothing of ours is in it yet.
    this.#mends = false;
    if (this.#journal) this.#leaveJournal();
  }

  /** A file keeps the priorities that the journal would take off. */
  #leaveJournal(): void {
    this.#journal = false;
    this.#cut();
    for (const [index, chunk] of this.#chunks.entries()) {
      const plain = Buffer.from(chunk.toString().replace(PREFIX, ""));
      this.#waitingBytes -= chunk.length - plain.length;
      this.#chunks[index] = plain;
    }
  }

  #next(): void {
    if (this.#state === "closed") return;
    if (!this.#torn) this.#changeOver();
    if (this.#chunks.length === 0) this.#cut();
    if (this.#mends && !this.#torn) this.#mend();
    const [chunk] = this.#chunks;
    if (!chunk) {
      this.#state = "idle";
      this.#onIdle();
      return;
    }
    this.#state = "writing";
    write(this.#fd, chunk, 0, chunk.length, null, (error, written) => {
      if (this.#state === "closed") return;
      if (error) {
        this.#refused(error);
      } else {
        this.#took(written);
        this.#next();
      }
    });
  }

  #refused({ code = "unknown" }: NodeJS.ErrnoException): void {
    if (GONE.has(code)) {
      this.#giveUp();
      return;
    }
    this.#state = "retrying";
    if (code === "EAGAIN") {
      this.#retry = setTimeout(() => this.#next(), RETRY_MS);
      return;
    }
    this.#shortage ??= { errno: code, since: Date.now() };
    this.#mends = true;
    // Others write to the same file: their next line would stand in the midst of this one.
    if (this.#torn) this.#dropRest();
    if (this.#successor !== undefined) this.#next();
    // A process that has nothing else to do does not wait for room.
    else this.#retry = setTimeout(() => this.#next(), SHORTAGE_RETRY_MS).unref();
  }

  /** Gives up the rest of a line whose beginning was written. */
  #dropRest(): void {
    this.#torn = false;
    const [chunk] = this.#chunks;
    if (!chunk) return;
    const end = chunk.indexOf(NEWLINE) + 1 || chunk.length;
    this.#dropped++;
    this.#used(end);
  }

  /** After a shortage the file may end within a line, of this process or of another. */
  #mend(): void {
    this.#mends = false;
    if (endsInLine(this.#fd) !== true || this.#chunks.length === 0) return;
    this.#chunks.unshift(Buffer.from("\n"));
    this.#waitingBytes += 1;
  }

  /** So many bytes of the first chunk are done with. */
  #used(bytes: number): void {
    this.#waitingBytes -= bytes;
    const rest = this.#chunks[0]?.subarray(bytes);
    if (rest?.length) this.#chunks[0] = rest;
    else this.#chunks.shift();
  }

  #took(bytes: number): void {
    this.#progressAt = Date.now();
    const chunk = this.#chunks[0];
    this.#torn = chunk !== undefined && bytes < chunk.length && (bytes > 0 ? chunk[bytes - 1] !== NEWLINE : this.#torn);
    this.#used(bytes);
    if (this.#waitingBytes <= WAITING_BYTES / 2) this.#tellLosses();
  }

  /** Room is back: says since when there was none, and what was lost. */
  #tellLosses(): void {
    const lost = this.#dropped - this.#droppedSaid;
    const { errno, since } = this.#shortage ?? {};
    if (lost === 0 && since === undefined) return;
    this.#droppedSaid = this.#dropped;
    this.#shortage = undefined;
    const dropped = `${lost} log lines were dropped`;
    const msg =
      since === undefined
        ? `${dropped}: nobody read them in time`
        : `${dropped}: the log could not be written for ${((Date.now() - since) / 1000).toFixed(1)} s (${errno})`;
    this.write(`${JSON.stringify({ level: WARN, time: Date.now(), pid: process.pid, dropped: lost, msg })}\n`);
  }

  #giveUp(): void {
    const waited = this.#state !== "closed" && this.#state !== "idle";
    this.#state = "closed";
    clearTimeout(this.#retry);
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
    this.#changeOver();
    try {
      while (this.#chunks[0]) {
        try {
          this.#took(writeSync(this.#fd, this.#chunks[0]));
          this.#cut();
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
