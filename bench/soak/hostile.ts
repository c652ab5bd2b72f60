/**
 * Clients that mean no good, on a listener of their own in the same workers: they say nothing, or garbage, or a byte now
 * and then; ask for much and never read it; hang up half way or with RST. Each gets what it deserves from a deadline or
 * a limit; none outlives the attack by more than that.
 */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";

/** At once. */
const MOST = 100;
const EVERY_MS = 50;
/** Frames of the slow reader: more than the kernel's buffers hold. */
const BULK_BYTES = 256 * 1024;
const BULK_FRAMES = 64;
const DRIBBLE_MS = 200;

type Act = (socket: Socket) => void;

function frame(bytes: number): Buffer {
  const whole = Buffer.alloc(4 + bytes, "x");
  whole.writeUInt32BE(bytes);
  return whole;
}

/** A byte now and then, of a frame that never ends. */
function dribble(socket: Socket): void {
  socket.write(frame(1_000).subarray(0, 5));
  const timer = setInterval(() => socket.write("x"), DRIBBLE_MS);
  socket.once("close", () => clearInterval(timer));
}

/** Asks for all of it and reads none. */
function neverRead(socket: Socket): void {
  socket.pause();
  const bulk = frame(BULK_BYTES);
  for (let count = 0; count < BULK_FRAMES; count++) socket.write(bulk);
}

const ACTS: Readonly<Record<string, Act>> = {
  silent: () => {},
  dribbles: dribble,
  garbage: (socket) => socket.write(randomBytes(1 + Math.floor(Math.random() * 2_000))),
  "too large": (socket) => socket.write(Buffer.from([0x7f, 0xff, 0xff, 0xff])),
  empty: (socket) => socket.write(Buffer.alloc(4)),
  "never reads": neverRead,
  "hangs up half way": (socket) => socket.end(frame(100).subarray(0, 50)),
  resets: (socket) => {
    socket.write(frame(10));
    socket.resetAndDestroy();
  },
};

export class Hostile {
  /** What was begun, by kind. */
  readonly begun: Record<string, number> = Object.fromEntries(Object.keys(ACTS).map((name) => [name, 0]));
  readonly #port: number;
  readonly #open = new Set<Socket>();
  readonly #timer: NodeJS.Timeout;
  #turn = 0;

  constructor(port: number) {
    this.#port = port;
    this.#timer = setInterval(() => this.#next(), EVERY_MS);
  }

  /** Nothing new is begun, and what is open is cut. */
  end(): void {
    clearInterval(this.#timer);
    for (const socket of this.#open) socket.destroy();
  }

  #next(): void {
    if (this.#open.size >= MOST) return;
    const names = Object.keys(ACTS);
    const name = names[this.#turn++ % names.length] as string;
    this.begun[name] = (this.begun[name] ?? 0) + 1;
    // Half open is what some of them want to be.
    const socket = connect({ port: this.#port, host: "127.0.0.1", allowHalfOpen: true });
    this.#open.add(socket);
    socket.on("error", () => {});
    socket.once("end", () => socket.end());
    socket.once("close", () => this.#open.delete(socket));
    socket.once("connect", () => ACTS[name]?.(socket));
  }
}
