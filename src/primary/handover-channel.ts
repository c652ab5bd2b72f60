/**
 * One end of the channel between two generations: messages in order, each with its descriptors. A message that is
 * waited for has a deadline; the other end's going is an error for whoever waits, and an event for whoever does not.
 */
import { HeadraceError, messageOf } from "../base/errors.ts";
import type { HandoverMessage } from "../control/handover-messages.ts";
import { channelUnwatch, channelWatch, closeDescriptor, receiveMessage, sendMessage } from "../os/descriptors.ts";

const MESSAGE_BYTES = 64 * 1024;
/** A full channel is tried again so often. The other end reads as fast as it can, or is dead. */
const RETRY_MS = 5;
const SEND_MS = 5_000;

type MessageOf<Type extends HandoverMessage["type"]> = Extract<HandoverMessage, { type: Type }>;

export interface Received<Message> {
  readonly message: Message;
  /** The receiver's to close. */
  readonly fds: readonly number[];
}

interface Waiter {
  readonly type: string;
  resolve(received: Received<HandoverMessage>): void;
  reject(error: Error): void;
}

const broken = (why: string): HeadraceError => new HeadraceError("change-failed", why);

export class HandoverChannel {
  /** Hears what nobody waits for. */
  onMessage: (received: Received<HandoverMessage>) => void = NOBODY;
  /** The other end has gone. */
  onGone: () => void = () => {};
  readonly #fd: number;
  readonly #watch: ReturnType<typeof channelWatch>;
  readonly #into = Buffer.alloc(MESSAGE_BYTES);
  readonly #early: Received<HandoverMessage>[] = [];
  #waiter: Waiter | undefined;
  #state: "open" | "gone" | "closed" = "open";

  /** `fd` is the channel's from now on. */
  constructor(fd: number) {
    this.#fd = fd;
    this.#watch = channelWatch(fd, () => this.#read());
  }

  get open(): boolean {
    return this.#state === "open";
  }

  /** Throws when the other end has gone, or does not read. */
  async send(message: HandoverMessage, fds: readonly number[] = []): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(message));
    for (const started = Date.now(); this.#state === "open"; ) {
      const result = sendMessage(this.#fd, bytes, fds);
      if (result === "sent") return;
      if (result === "gone") break;
      if (Date.now() - started > SEND_MS) throw broken("the other generation does not read what it is sent");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    throw broken("the other generation has gone");
  }

  /** The next message, which must be of this type, within `ms`. `what` names what is waited for, in errors. */
  receive<Type extends HandoverMessage["type"]>(
    type: Type,
    what: string,
    ms: number,
    signal?: AbortSignal,
  ): Promise<Received<MessageOf<Type>>> {
    const late = (): Error => broken(`${what}: not within ${ms / 1000} s`);
    return this.#wait(type, ms, (_, reject) => reject(late()), signal) as Promise<Received<MessageOf<Type>>>;
  }

  /** Resolves after `ms`, unless the other end says that it failed, says anything at all, or goes before that. */
  async quiet(ms: number, signal?: AbortSignal): Promise<void> {
    await this.#wait("nothing", ms, (resolve) => resolve(), signal);
  }

  #wait(
    type: string,
    ms: number,
    onLate: (resolve: () => void, reject: (error: Error) => void) => void,
    signal: AbortSignal | undefined,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", stop);
        this.#waiter = undefined;
      };
      const finish = (received?: Received<HandoverMessage>): void => {
        settle();
        resolve(received);
      };
      const fail = (error: Error): void => {
        settle();
        reject(error);
      };
      const stop = (): void => fail(broken("the server stops"));
      const timer = Number.isFinite(ms) ? setTimeout(() => onLate(finish, fail), ms) : undefined;
      this.#waiter = { type, resolve: finish, reject: fail };
      signal?.addEventListener("abort", stop, { once: true });
      const early = this.#early.shift();
      if (signal?.aborted) stop();
      else if (early) this.#deliver(early);
      else if (this.#state !== "open") fail(broken("the other generation has gone"));
    });
  }

  /** From now on nobody waits: messages go to `onMessage`, also those that have come already. */
  listen(onMessage: (received: Received<HandoverMessage>) => void, onGone: () => void): void {
    this.onMessage = onMessage;
    this.onGone = onGone;
    for (const received of this.#early.splice(0)) onMessage(received);
    if (this.#state === "gone") onGone();
  }

  /** Idempotent. */
  close(): void {
    if (this.#state === "closed") return;
    const before = this.#state;
    this.#state = "closed";
    if (before === "open") channelUnwatch(this.#watch);
    closeDescriptor(this.#fd);
    for (const { fds } of this.#early.splice(0)) for (const fd of fds) closeDescriptor(fd);
  }

  /** Called by the event loop: what the other end sends must not end this process. */
  #read(): void {
    let result: ReturnType<typeof receiveMessage>;
    try {
      result = receiveMessage(this.#fd, this.#into);
    } catch (error) {
      this.#lose(`what the other generation sent cannot be received: ${messageOf(error)}`);
      return;
    }
    if (result === "empty") return;
    if (result === "gone") {
      this.#lose("the other generation has gone");
      return;
    }
    const message = parse(this.#into.toString("utf8", 0, result.length));
    if (message) {
      this.#deliver({ message, fds: result.fds });
      return;
    }
    for (const fd of result.fds) closeDescriptor(fd);
    this.#lose("the other generation sent something that is no message");
  }

  #lose(why: string): void {
    this.#state = "gone";
    channelUnwatch(this.#watch);
    this.#waiter?.reject(broken(why));
    this.onGone();
  }

  #deliver(received: Received<HandoverMessage>): void {
    const { message } = received;
    const waiter = this.#waiter;
    if (waiter && waiter.type !== message.type) {
      for (const fd of received.fds) closeDescriptor(fd);
      const wrong = `the other generation said "${message.type}" instead of "${waiter.type}"`;
      waiter.reject(broken(message.type === "failed" ? message.message : wrong));
    } else if (waiter) waiter.resolve(received);
    else if (this.onMessage === NOBODY) this.#early.push(received);
    else this.onMessage(received);
  }
}

function parse(text: string): HandoverMessage | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const typed = typeof value === "object" && value !== null && "type" in value && typeof value.type === "string";
    return typed ? (value as HandoverMessage) : undefined;
  } catch {
    return undefined;
  }
}

/** The listener of a channel that nobody listens to yet. */
function NOBODY(): void {}
