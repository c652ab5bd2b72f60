/**
 * The terminal of `headrace top`: the alternate screen, single keys, the size. Invariant: whatever ends the process but
 * SIGKILL, the terminal is as it was before: the usual screen, a cursor, lines with echo.
 *
 *   (usual) ── enter ──► alternate ◄── CONT ── stopped
 *      ▲                    │ └────── TSTP, Ctrl-Z ──┘
 *      └── leave: q, Ctrl-C, a signal, an error, the end ──┘
 */
import { writeSync } from "node:fs";
import type { ReadStream, WriteStream } from "node:tty";
import type { Emphasis, Room, ViewLine } from "./top-view.ts";

const STDOUT = 1;
const ENTER = "\u001b[?1049h\u001b[?25l";
const LEAVE = "\u001b[?25h\u001b[?1049l";
const HOME = "\u001b[H";
const REST_OF_LINE = "\u001b[K";
const REST_OF_SCREEN = "\u001b[J";
const RESET = "\u001b[0m";
const STYLES: Readonly<Record<Emphasis, string>> = {
  none: "",
  heading: "\u001b[7m",
  alarm: "\u001b[1m",
  faint: "\u001b[2m",
};
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;
const CTRL_C = "\u0003";
const CTRL_Z = "\u001a";
/** A terminal that takes so little gets no more frames until it has taken what is there. */
const BEHIND_BYTES = 64 * 1024;
const DEFAULT_ROOM: Room = { columns: 80, rows: 24 };

export interface ScreenListener {
  key(key: string): void;
  resized(): void;
}

export class Screen {
  readonly #output: WriteStream;
  /** Undefined where there is no keyboard. */
  readonly #input: ReadStream | undefined;
  readonly #listener: ScreenListener;
  #entered = false;

  constructor(output: WriteStream, input: ReadStream, listener: ScreenListener) {
    this.#output = output;
    this.#input = input.isTTY ? input : undefined;
    this.#listener = listener;
  }

  get room(): Room {
    const { columns, rows } = this.#output;
    return { columns: columns || DEFAULT_ROOM.columns, rows: rows || DEFAULT_ROOM.rows };
  }

  get hasKeys(): boolean {
    return this.#input !== undefined;
  }

  open(): void {
    process.on("exit", this.#leave);
    // Before Node prints what was thrown.
    process.on("uncaughtExceptionMonitor", this.#leave);
    for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) process.on(signal, this.#end);
    process.on("SIGTSTP", this.#pause);
    process.on("SIGCONT", this.#enter);
    this.#output.on("resize", this.#resized);
    this.#input?.on("data", this.#read);
    this.#enter();
  }

  close(): void {
    this.#leave();
    process.off("exit", this.#leave);
    process.off("uncaughtExceptionMonitor", this.#leave);
    for (const signal of Object.keys(SIGNALS)) process.off(signal, this.#end);
    process.off("SIGTSTP", this.#pause);
    process.off("SIGCONT", this.#enter);
    this.#output.off("resize", this.#resized);
    this.#input?.off("data", this.#read);
    this.#input?.pause();
  }

  draw(lines: readonly ViewLine[]): void {
    if (!this.#entered || this.#output.writableLength > BEHIND_BYTES) return;
    const painted = lines.map(({ text, emphasis }) => {
      const style = process.env.NO_COLOR ? "" : STYLES[emphasis];
      return style === "" ? text + REST_OF_LINE : `${style}${text}${RESET}${REST_OF_LINE}`;
    });
    this.#output.write(`${HOME}${painted.join("\r\n")}${REST_OF_SCREEN}`);
  }

  readonly #enter = (): void => {
    this.#input?.setRawMode(true);
    this.#output.write(ENTER);
    this.#entered = true;
    this.#listener.resized();
  };

  /** At once: there may be no event loop any more. */
  readonly #leave = (): void => {
    if (!this.#entered) return;
    this.#entered = false;
    try {
      this.#input?.setRawMode(false);
      writeSync(STDOUT, LEAVE);
    } catch {
      // The terminal has gone.
    }
  };

  readonly #end = (signal: NodeJS.Signals): void => {
    this.#leave();
    process.exit(128 + SIGNALS[signal as keyof typeof SIGNALS]);
  };

  readonly #pause = (): void => {
    this.#leave();
    process.kill(process.pid, "SIGSTOP");
  };

  readonly #resized = (): void => this.#listener.resized();

  readonly #read = (typed: Buffer): void => {
    const text = typed.toString("latin1");
    // The keys that have names come as an escape and more.
    if (text.startsWith("\u001b")) return;
    for (const key of text) {
      if (key === CTRL_C) this.#end("SIGINT");
      else if (key === CTRL_Z) this.#pause();
      else this.#listener.key(key);
    }
  };
}
