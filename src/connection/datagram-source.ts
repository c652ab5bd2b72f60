/**
 * The other end of a datagram: sixteen words (END of engine/layout.ts), as the engine wrote them in front of it. `from`
 * is one such object that points into the input arena, at another datagram for each call of a handler; a kept one has
 * words of its own. Its text is made when somebody reads it.
 */
import { HeadraceError } from "../base/errors.ts";
import { hostOfEnd } from "../engine/datagram-end.ts";
import { END } from "../engine/layout.ts";
import type { SendResult } from "../service/connection.ts";
import type { DatagramSource } from "../service/udp.ts";

/** What a source asks of its endpoint. */
export interface SourceOwner {
  sendTo(message: string | Uint8Array, to: Source): SendResult;
  isVerified(source: Source): boolean;
  verify(source: Source): void;
  /** It is the one that is reused for each datagram, and no handler runs. */
  isOver(source: Source): boolean;
}

const PORT_MASK = 0xffff;

const EXPIRED =
  "a datagram's `from` is valid until its handler returns; keep `from.keep()` instead, or return a promise";

/** Words of its own: those of `at` and after, copied. */
function copyOf(words: Int32Array, at: number): Int32Array {
  return words.slice(at, at + END.words);
}

export class Source implements DatagramSource {
  words: Int32Array;
  /** Where its words begin. */
  at: number;
  /** What it may get as the source of the datagram that is being handled, should its entry be another's by now. */
  left = 0;
  readonly #owner: SourceOwner;
  #host: string | undefined;
  #expired = false;

  constructor(owner: SourceOwner, words: Int32Array, at = 0) {
    this.#owner = owner;
    this.words = words;
    this.at = at;
  }

  /** It is another's from now on. */
  point(at: number, left: number): void {
    this.at = at;
    this.left = left;
    this.#host = undefined;
  }

  /** It is its holder's for good. */
  detach(): void {
    this.words = copyOf(this.words, this.at);
    this.at = 0;
  }

  /** It is nobody's: using it throws. */
  expire(): void {
    this.#expired = true;
  }

  /** Throws when it is not what its holder takes it for. */
  check(): void {
    if (this.#expired || this.#owner.isOver(this)) throw new HeadraceError("service-invalid", EXPIRED);
  }

  get host(): string {
    this.check();
    this.#host ??= hostOfEnd(this.words, this.at);
    return this.#host;
  }

  get port(): number {
    this.check();
    return (this.words[this.at + END.port] as number) & PORT_MASK;
  }

  get verified(): boolean {
    this.check();
    return this.#owner.isVerified(this);
  }

  verify(): void {
    this.check();
    this.#owner.verify(this);
  }

  send(message: string | Uint8Array): SendResult {
    return this.#owner.sendTo(message, this);
  }

  keep(): Source {
    this.check();
    const kept = new Source(this.#owner, copyOf(this.words, this.at));
    kept.#host = this.#host;
    return kept;
  }
}
