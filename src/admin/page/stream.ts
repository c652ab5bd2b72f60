/**
 * The page's end of GET /events. Not an EventSource, which neither tells a refused token from a server that is gone nor
 * notices one that fell silent: here every wait has an end, and it always tries again.
 */
import type { PageEvent } from "#src/admin/page-events.js";

/** Events come once a second. */
const SILENCE_MS = 5000;
const FIRST_RETRY_MS = 300;
const MOST_RETRY_MS = 5000;
/** A stream that ended after so long did so in order: the next may begin at once. */
const LONG_MS = 10_000;
/** An event of 256 workers has some 60,000 characters. */
const MOST_CHARACTERS = 4 << 20;

export interface StreamListener {
  onEvent(event: PageEvent): void;
  /** The session is over, or there was none. */
  onSignedOut(): void;
  /** The server answered, but not with events. */
  onRefused(why: string): void;
}

/** What stands in the complete messages of `text`, and what is left of it. */
export function takeMessages(text: string): { readonly data: readonly string[]; readonly rest: string } {
  const messages = text.split("\n\n");
  const rest = messages.pop() ?? "";
  // One line each; a heartbeat is a comment, and the last message has a name that says so.
  return { data: messages.flatMap((each) => (each.startsWith("data: ") ? [each.slice(6)] : [])), rest };
}

export class PageStream {
  readonly #listener: StreamListener;
  #abort: AbortController | undefined;
  #retry: number | undefined;
  #retryMs = FIRST_RETRY_MS;
  #watch: number | undefined;

  constructor(listener: StreamListener) {
    this.#listener = listener;
  }

  start(): void {
    this.stop();
    this.#retryMs = FIRST_RETRY_MS;
    void this.#run();
  }

  stop(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#watch);
    this.#abort?.abort();
    this.#abort = undefined;
  }

  async #run(): Promise<void> {
    const abort = new AbortController();
    const began = Date.now();
    this.#abort = abort;
    try {
      this.#heard();
      const headers = { accept: "text/event-stream" };
      const response = await fetch("/events", { headers, cache: "no-store", signal: abort.signal });
      if (response.status === 401) {
        this.stop();
        return this.#listener.onSignedOut();
      }
      if (response.ok && response.body) await this.#read(response.body);
      else this.#listener.onRefused(await whyRefused(response));
    } catch {
      // Whatever it was: the server is not heard, and that is what the page says.
    }
    clearTimeout(this.#watch);
    if (this.#abort !== abort) return;
    const long = Date.now() - began > LONG_MS && !abort.signal.aborted;
    this.#retry = setTimeout(() => void this.#run(), long ? 0 : this.#retryMs * (0.75 + Math.random() / 2));
    this.#retryMs = Math.min(this.#retryMs * 2, MOST_RETRY_MS);
  }

  async #read(body: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#heard();
      const taken = takeMessages(rest + value);
      rest = taken.rest;
      if (rest.length > MOST_CHARACTERS) throw new RangeError("an event without an end");
      for (const data of taken.data) {
        this.#retryMs = FIRST_RETRY_MS;
        this.#listener.onEvent(JSON.parse(data) as PageEvent);
      }
    }
  }

  /** Silence from now on is noticed. */
  #heard(): void {
    const abort = this.#abort;
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => abort?.abort(), SILENCE_MS);
  }
}

async function whyRefused(response: Response): Promise<string> {
  const body: unknown = await response.json().catch(() => undefined);
  const error = typeof body === "object" && body !== null && "error" in body ? body.error : undefined;
  return typeof error === "string" ? error : `the server answered ${response.status}`;
}
