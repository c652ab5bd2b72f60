/**
 * The topics of one connection, and the messages that wait because it reads too slowly: a bounded queue behind the
 * bytes that are with the engine already. What becomes of a message that finds it full is the service's choice.
 */
import { HeadraceError } from "../base/errors.ts";
import type { AnyService } from "../service/define.ts";
import { Fifo } from "./fifo.ts";
import { type Subscriber, Topics } from "./topics.ts";

/** Of one connection. */
const TOPICS_MAX = 1_000;

export class Subscriptions {
  readonly #topics: Topics;
  readonly #service: AnyService;
  readonly #subscriber: Subscriber;
  readonly #names: Set<string> = new Set();
  #waiting: Fifo<Buffer> = new Fifo();
  /** Of all that wait; others may wait for the same. */
  bytes = 0;

  constructor(topics: Topics, service: AnyService, subscriber: Subscriber) {
    this.#topics = topics;
    this.#service = service;
    this.#subscriber = subscriber;
  }

  get names(): string[] {
    return [...this.#names];
  }

  /** What waits, in its order. */
  get waiting(): Buffer[] {
    return this.#waiting.list();
  }

  /** Idempotent. Throws `service-invalid`. */
  add(topic: string): void {
    const key = Topics.keyOf(this.#service, topic);
    if (!this.#names.has(topic) && this.#names.size === TOPICS_MAX) {
      throw new HeadraceError("service-invalid", `a connection has no more than ${TOPICS_MAX} topics`);
    }
    this.#names.add(topic);
    this.#topics.subscribe(key, this.#subscriber);
  }

  /** Idempotent. */
  remove(topic: string): void {
    if (this.#names.delete(topic)) this.#topics.unsubscribe(Topics.keyOf(this.#service, topic), this.#subscriber);
  }

  /** False when it is full and the connection is to end. */
  wait(message: Buffer): boolean {
    const { queued, whenFull } = this.#service.topics;
    if (this.#waiting.length >= queued) {
      if (whenFull === "close") return false;
      this.next();
      this.#topics.drop(1);
    }
    this.#waiting.push(message);
    this.bytes += message.length;
    this.#topics.retain(message);
    return true;
  }

  /** The oldest that waits. */
  next(): Buffer | undefined {
    const message = this.#waiting.shift();
    if (!message) return undefined;
    this.bytes -= message.length;
    this.#topics.release(message);
    return message;
  }

  /** The connection has ended. */
  end(): void {
    while (this.next()) {}
    for (const topic of this.#names) this.#topics.unsubscribe(Topics.keyOf(this.#service, topic), this.#subscriber);
    this.#names.clear();
  }
}
