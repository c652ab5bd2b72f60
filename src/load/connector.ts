/** Begins connects from the source addresses in turn, and sees to it that each is decided in time. */
import { SOCKET_OPTION_NAMES } from "../os/socket.ts";
import type { Client } from "./client.ts";
import { Deadlines } from "./deadlines.ts";
import type { Load } from "./load.ts";

const NO_DELAY = 1;
const UNSET = -1;

/** TCP_NODELAY and nothing else: every option is a system call per connection. */
function socketOptions(): Int32Array {
  return Int32Array.from(SOCKET_OPTION_NAMES, (name) => (name === "noDelay" ? NO_DELAY : UNSET));
}

export class Connector {
  readonly deadlines: Deadlines;
  readonly #sources: readonly string[];
  readonly #options: Int32Array = socketOptions();

  constructor(load: Load) {
    this.deadlines = new Deadlines(load.share.timeoutMs, load.tally);
    this.#sources = load.share.sources;
  }

  /** False when it failed at once, which is counted. Else `opened` or `gone` follows; who hears it must unwatch. */
  connect(client: Client): boolean {
    const source = this.#sources[client.number % this.#sources.length] ?? "";
    if (!client.connect(source, this.#options)) return false;
    this.deadlines.watch(client);
    return true;
  }
}
