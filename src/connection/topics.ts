/**
 * Who of this worker has subscribed to what, and what is published: by connections of this worker at once, by those of
 * the others when their ring says so (src/os/topic-rings.ts). A message is bytes by then, encoded once where it was
 * published. Topics belong to a service: two services do not hear each other unless they have the same name and codec.
 */
import { HeadraceError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { WORKER_FIELDS } from "../os/scoreboard.ts";
import { TOPIC_MESSAGE_MAX, type TopicReader, type TopicRings, type TurnLimit } from "../os/topic-rings.ts";
import type { AnyService } from "../service/define.ts";
import { Fifo } from "./fifo.ts";

/** A connection, as far as it matters here. Never throws and never waits. */
export interface Subscriber {
  deliver(message: Buffer): void;
}

const NAME_BYTES_MAX = 255;
/** Of reading; a message is delivered whole, to however many. */
const TURN: TurnLimit = { messages: 256, ms: 8 };

export interface TopicsOptions {
  /** Those of the other workers; without them a message stays here. */
  readonly rings?: TopicRings;
  /** Sends what was delivered outside a round. */
  readonly flush: () => void;
  /** Bytes that wait for slow subscribers, each message once. */
  readonly hold: (bytes: number) => void;
  /** Head of the worker's block: where messages are counted. */
  readonly head: Float64Array;
  readonly log: Logger;
}

/** Smaller messages share memory. */
const POOLED_BYTES = 1_024;
const PUBLISHED = WORKER_FIELDS.indexOf("published");
const DROPPED = WORKER_FIELDS.indexOf("dropped");
/** Between two warnings, ms. */
const SILENCE_MS = 10_000;

/** Of a service, what its topics start with. */
const scopeOf = ({ name, codec }: AnyService): string => `${name}\0${codec.name}\0`;

export class Topics {
  readonly #options: TopicsOptions;
  readonly #subscribers: Map<string, Set<Subscriber>> = new Map();
  /** Messages that wait for slow subscribers, and for how many. */
  readonly #waiting: Map<Buffer, number> = new Map();
  /** Published while another message is being delivered: by what `onClose` does for those that were too slow for that. */
  readonly #behind: Fifo<{ readonly key: string; readonly message: Buffer }> = new Fifo();
  readonly #reader: TopicReader = {
    wants: (key) => this.#subscribers.has(key),
    hear: (key, message) => this.#deliver(key, message),
  };
  #silentUntil = 0;
  #delivering = false;
  #listening = false;
  #ringing = false;
  #reading = false;

  constructor(options: TopicsOptions) {
    this.#options = options;
  }

  /** The name by which a topic of `service` is known here. Throws `service-invalid`. */
  static keyOf(service: AnyService, topic: string): string {
    if (typeof topic === "string" && topic !== "" && Buffer.byteLength(topic) <= NAME_BYTES_MAX) {
      return scopeOf(service) + topic;
    }
    throw new HeadraceError("service-invalid", `topic ${JSON.stringify(topic)?.slice(0, 100)}: not a topic's name`, {
      allowed: `text of 1 to ${NAME_BYTES_MAX} bytes`,
    });
  }

  subscribe(key: string, subscriber: Subscriber): void {
    this.#listen();
    const subscribers = this.#subscribers.get(key) ?? new Set();
    this.#subscribers.set(key, subscribers);
    subscribers.add(subscriber);
  }

  unsubscribe(key: string, subscriber: Subscriber): void {
    const subscribers = this.#subscribers.get(key);
    subscribers?.delete(subscriber);
    if (subscribers?.size === 0) this.#subscribers.delete(key);
  }

  /** Encodes the message and gives it to all who have subscribed, here and in the other workers. */
  publish(service: AnyService, topic: string, message: unknown, maxFrameBytes: number): void {
    const key = Topics.keyOf(service, topic);
    const { codec } = service;
    const bytes = allocate(codec.sizeOf(message));
    const length = codec.encodeInto(message, bytes, 0, maxFrameBytes);
    // A view would keep, while it waits for somebody, what is beyond it too.
    const payload = length === bytes.length ? bytes : allocate(length);
    if (payload !== bytes) bytes.copy(payload, 0, 0, length);
    const name = Buffer.from(key);
    const { rings } = this.#options;
    if (name.length + length > TOPIC_MESSAGE_MAX) {
      throw new HeadraceError("frame-too-large", `topic ${topic}: ${length} bytes cannot be published`, {
        given: String(length),
        allowed: `at most ${TOPIC_MESSAGE_MAX - name.length}`,
      });
    }
    const { head } = this.#options;
    head[PUBLISHED] = (head[PUBLISHED] as number) + 1;
    rings?.write(name, payload);
    this.#ring();
    this.#deliver(key, payload);
  }

  /** Reads what others have published. Called when the bell rings, and now and then to be sure. */
  read(): void {
    const { rings } = this.#options;
    if (!rings || !this.#listening || this.#reading) return;
    const lost = rings.lost;
    const more = rings.read(this.#reader, TURN);
    if (rings.lost > lost) this.#tellLost(rings.lost - lost);
    this.#options.flush();
    if (!more) return;
    this.#reading = true;
    setImmediate(() => {
      this.#reading = false;
      this.read();
    });
  }

  /** Messages that did not get to a subscriber. */
  drop(count: number): void {
    const { head } = this.#options;
    head[DROPPED] = (head[DROPPED] as number) + count;
  }

  /** It waits for one subscriber more, until `release`. */
  retain(message: Buffer): void {
    const users = this.#waiting.get(message) ?? 0;
    if (users === 0) this.#options.hold(message.length);
    this.#waiting.set(message, users + 1);
  }

  release(message: Buffer): void {
    const users = (this.#waiting.get(message) ?? 1) - 1;
    if (users > 0) {
      this.#waiting.set(message, users);
      return;
    }
    this.#waiting.delete(message);
    this.#options.hold(-message.length);
  }

  /** The ring of another worker came round before this one had read it. */
  #tellLost(count: number): void {
    this.drop(count);
    if (performance.now() < this.#silentUntil) return;
    this.#silentUntil = performance.now() + SILENCE_MS;
    this.#options.log.warn("topics: messages of other workers were lost: this worker is too slow for them");
  }

  /** One message after the other: everybody hears them in the same order. */
  #deliver(key: string, message: Buffer): void {
    if (this.#delivering) {
      this.#behind.push({ key, message });
      return;
    }
    this.#delivering = true;
    this.#give(key, message);
    for (let next = this.#behind.shift(); next; next = this.#behind.shift()) this.#give(next.key, next.message);
    this.#delivering = false;
  }

  #give(key: string, message: Buffer): void {
    const subscribers = this.#subscribers.get(key);
    if (!subscribers) return;
    for (const subscriber of subscribers) subscriber.deliver(message);
  }

  /** From the first subscription on: a worker without any does not wake for others. */
  #listen(): void {
    const { rings } = this.#options;
    if (this.#listening || !rings) return;
    this.#listening = true;
    // What was published before nobody here has asked for.
    rings.skip();
    rings.listen(() => this.read());
  }

  /** At the end of this turn, for all that is published in it. */
  #ring(): void {
    const { rings } = this.#options;
    if (this.#ringing || !rings) return;
    this.#ringing = true;
    queueMicrotask(() => {
      this.#ringing = false;
      rings.ring();
    });
  }
}

/** Not from Node's pool, of which a waiting message would keep 64 KiB, unless many share those. */
function allocate(bytes: number): Buffer {
  return bytes < POOLED_BYTES ? Buffer.allocUnsafe(bytes) : Buffer.allocUnsafeSlow(bytes);
}
