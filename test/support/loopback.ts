/** An engine on a listening socket of 127.0.0.1, and owners that write down what they hear. */
import type { TestContext } from "node:test";
import { DEFAULT_SOCKET, type SocketOptions } from "#src/base/settings.js";
import { Engine, type EngineOptions, type SlotOwner } from "#src/engine/engine.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { until } from "./until.js";

/** Writes down what an owner hears; `on` adds what a test wants done at once. */
export class Recorder implements SlotOwner {
  readonly engine: Engine;
  slot = -1;
  generation = -1;
  /** In order: "open", "data", "end", "error ECODE", "writable", "blocked", "secured". */
  readonly events: string[] = [];
  readonly chunks: Buffer[] = [];
  ended = false;
  errno = 0;
  readonly on: Partial<SlotOwner>;

  constructor(engine: Engine, on: Partial<SlotOwner> = {}) {
    this.engine = engine;
    this.on = on;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get text(): string {
    return this.bytes.toString("latin1");
  }

  count(event: string): number {
    return this.events.filter((each) => each === event).length;
  }

  get opened(): boolean {
    return this.count("open") > 0;
  }

  onOpen(): void {
    this.events.push("open");
    this.on.onOpen?.();
  }

  onData(input: Buffer, from: number, to: number): void {
    this.events.push("data");
    this.chunks.push(Buffer.from(input.subarray(from, to)));
    this.on.onData?.(input, from, to);
  }

  onEnd(): void {
    this.events.push("end");
    this.ended = true;
    this.on.onEnd?.();
  }

  onError(errno: number): void {
    this.events.push("error");
    this.errno = errno;
    this.on.onError?.(errno);
  }

  onWritable(): void {
    this.events.push("writable");
    this.on.onWritable?.();
  }

  onBlocked(): void {
    this.events.push("blocked");
    this.on.onBlocked?.();
  }

  onSecured(): void {
    this.events.push("secured");
    this.on.onSecured?.();
  }

  /** Sends through the arena, or past it when it does not fit. */
  send(message: Uint8Array | string, coalesce = true): void {
    const bytes = typeof message === "string" ? Buffer.from(message, "latin1") : message;
    const at = this.engine.reserve(bytes.length);
    if (at < 0) {
      this.engine.sendLarge(this.slot, this.generation, bytes);
      return;
    }
    this.engine.output.set(bytes, at);
    this.engine.submit(this.slot, this.generation, at, bytes.length, coalesce);
  }

  get unsent(): number {
    return this.engine.unsent[this.slot] as number;
  }

  pause(): void {
    this.engine.pause(this.slot, this.generation);
  }

  resume(): void {
    this.engine.resume(this.slot, this.generation);
  }

  finish(): void {
    this.engine.finish(this.slot, this.generation);
  }

  close(flushMs = 5_000): void {
    this.engine.close(this.slot, this.generation, flushMs);
  }

  reset(): void {
    this.engine.reset(this.slot, this.generation);
  }
}

export interface Loopback {
  readonly engine: Engine;
  readonly totals: Float64Array;
  readonly fd: number;
  readonly port: number;
  /** In the order of their acceptance. */
  readonly accepted: Recorder[];
  readonly acceptErrors: number[];
  /** What accepted connections do at once; consulted at each accept. */
  on: (recorder: Recorder) => Partial<SlotOwner>;
  /** The connection accepted as number `index`. */
  nth(index: number): Promise<Recorder>;
  /** A connection from the engine itself to `port`. */
  connect(port?: number, on?: (recorder: Recorder) => Partial<SlotOwner>): Recorder;
}

export interface LoopbackOptions extends EngineOptions {
  readonly socket?: Partial<SocketOptions>;
  /** Accept at once. Default: true. */
  readonly accepting?: boolean;
}

export const PLAIN_OPTIONS: Int32Array = packSocketOptions(DEFAULT_SOCKET);

export function openListener(t: TestContext, socket: Partial<SocketOptions> = {}, host = "127.0.0.1"): number {
  const options = packSocketOptions({ ...DEFAULT_SOCKET, ...socket });
  const fd = check(addon().socketListen(host, 0, true, options), "listen");
  t.after(() => addon().fdClose(fd));
  return fd;
}

export function openEngine(t: TestContext, options: EngineOptions = {}): Engine {
  const engine = new Engine(options);
  t.after(() => engine.shutdown());
  return engine;
}

export function openLoopback(t: TestContext, options: LoopbackOptions = {}): Loopback {
  const totals = options.totals ?? new Float64Array(64);
  const engine = openEngine(t, { ...options, totals });
  const fd = openListener(t, options.socket);
  const loopback: Loopback = {
    engine,
    totals,
    fd,
    port: boundPort(fd),
    accepted: [],
    acceptErrors: [],
    on: () => ({}),
    nth: (index) => until(`connection ${index}`, () => loopback.accepted[index]),
    connect(port = loopback.port, on = () => ({})) {
      const recorder = new Recorder(engine);
      Object.assign(recorder.on, on(recorder));
      recorder.slot = check(engine.connect("127.0.0.1", port, "", PLAIN_OPTIONS, recorder), "connect");
      recorder.generation = engine.generation(recorder.slot);
      return recorder;
    },
  };
  if (options.accepting !== false) accept(loopback);
  return loopback;
}

/** Begins to accept, as listener 0. */
export function accept(loopback: Loopback): void {
  loopback.engine.listen(0, 0, loopback.fd, {
    onAccept(slot, generation) {
      const recorder = new Recorder(loopback.engine);
      recorder.slot = slot;
      recorder.generation = generation;
      Object.assign(recorder.on, loopback.on(recorder));
      loopback.accepted.push(recorder);
      return recorder;
    },
    onAcceptError: (errno) => loopback.acceptErrors.push(errno),
  });
}
