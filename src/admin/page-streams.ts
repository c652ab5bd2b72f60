/**
 * Those who watch the live page. One event a second, made once and written to all of them; nobody watching, no timer.
 * A reader that has not taken its last event gets none (the events are cumulative, so it misses nothing), and one
 * that takes nothing for `STALLED_MS` is cut off: so no reader ever has more than one event in memory here.
 */
import type { ServerResponse } from "node:http";

/** Watchers at once. */
export const MAX_STREAMS = 20;
const PERIOD_MS = 1000;
const STALLED_MS = 30_000;
/** After that a watcher has to come again, and show that its session still holds. */
const MOST_MS = 60_000;
/** So that a watcher can tell a server without figures from none. */
const HEARTBEAT = ": nothing to tell\n\n";

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  // Nobody else is answered on it, so that its end is the end.
  connection: "close",
  // A proxy in between (nginx) hands each event on at once.
  "x-accel-buffering": "no",
} as const;

interface Stream {
  readonly response: ServerResponse;
  readonly sinceMs: number;
  /** When it took something last. */
  takenMs: number;
}

export interface PageStreamsOptions {
  /** The next event as text, without line ends; `undefined` when there is none now. Never rejects. */
  readonly next: () => Promise<string | undefined>;
  readonly periodMs?: number;
  readonly stalledMs?: number;
  readonly mostMs?: number;
}

export class PageStreams {
  readonly #streams = new Set<Stream>();
  readonly #next: () => Promise<string | undefined>;
  readonly #periodMs: number;
  readonly #stalledMs: number;
  readonly #mostMs: number;
  #timer: NodeJS.Timeout | undefined;
  #ticking = false;

  constructor({ next, periodMs = PERIOD_MS, stalledMs = STALLED_MS, mostMs = MOST_MS }: PageStreamsOptions) {
    this.#next = next;
    this.#periodMs = periodMs;
    this.#stalledMs = stalledMs;
    this.#mostMs = mostMs;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** Whether another one may watch. */
  get full(): boolean {
    return this.#streams.size >= MAX_STREAMS;
  }

  /** Answers a request with events until either end has enough of it. `headers` go along with its own. */
  add(response: ServerResponse, headers: Readonly<Record<string, string>> = {}): void {
    const now = performance.now();
    const stream: Stream = { response, sinceMs: now, takenMs: now };
    this.#streams.add(stream);
    const gone = (): void => this.#remove(stream);
    response.once("close", gone).on("error", gone);
    response.writeHead(200, { ...headers, ...HEADERS });
    void this.#event().then((event) => response.writable && response.write(event));
    this.#timer ??= setInterval(() => void this.#tick(), this.#periodMs).unref();
  }

  /** Ends all of them in order; each hears why. */
  end(): void {
    for (const { response } of this.#streams) response.end('event: end\ndata: "stopping"\n\n');
    for (const stream of [...this.#streams]) this.#remove(stream);
  }

  async #event(): Promise<string> {
    const event = await this.#next();
    return event === undefined ? HEARTBEAT : `data: ${event}\n\n`;
  }

  async #tick(): Promise<void> {
    // Figures that take longer than a second to get come every other second.
    if (this.#ticking) return;
    this.#ticking = true;
    const event = await this.#event();
    this.#ticking = false;
    const now = performance.now();
    for (const stream of [...this.#streams]) {
      const { response } = stream;
      if (response.writableLength > 0) {
        if (now - stream.takenMs >= this.#stalledMs) response.destroy();
        continue;
      }
      stream.takenMs = now;
      if (now - stream.sinceMs < this.#mostMs) response.write(event);
      else response.end(event);
    }
  }

  #remove(stream: Stream): void {
    this.#streams.delete(stream);
    if (this.#streams.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
