/**
 * Messages that wait for slow subscribers, on their way to another worker (migration-batch.ts). Each travels once in a
 * move, with the first connection that waits for it; the others name it by its number, so that what is shared here is
 * shared there too. Both sides keep them until the move is over, hence a bound: what is past it does not travel.
 */

/** Of all messages of a move. */
export const WAITING_BYTES_MAX: number = 64 << 20;

/** Where the parts of a batch are read. */
export interface Source {
  /** The next `length` bytes, as a view. Throws RangeError when there are fewer. */
  take(length: number): Buffer;
}

const WORD = Uint32Array.BYTES_PER_ELEMENT;
/** Of one message: its number, its size. */
const ENTRY_BYTES = 2 * WORD;

export class WaitingOut {
  readonly #numbers: Map<Buffer, number> = new Map();
  #bytes = 0;
  /** Messages that did not travel, each as often as somebody waited for it. */
  dropped = 0;

  /** What one connection waits for, as parts to be written one behind the other. */
  encode(messages: readonly Buffer[]): Uint8Array[] {
    let next = this.#numbers.size;
    const chosen = this.#choose(messages);
    const head = Buffer.allocUnsafe(WORD + chosen.length * ENTRY_BYTES);
    head.writeUInt32LE(chosen.length, 0);
    const parts: Uint8Array[] = [head];
    for (const [index, message] of chosen.entries()) {
      const number = this.#numbers.get(message) as number;
      head.writeUInt32LE(number, WORD + index * ENTRY_BYTES);
      head.writeUInt32LE(message.length, WORD + index * ENTRY_BYTES + WORD);
      if (number < next) continue;
      parts.push(message);
      next += 1;
    }
    return parts;
  }

  /** Numbers those that are new, in their order; where they are too many the oldest stay behind. */
  #choose(messages: readonly Buffer[]): readonly Buffer[] {
    const fresh = new Set<Buffer>();
    const left = new Set<Buffer>();
    for (const message of messages.toReversed()) {
      if (this.#numbers.has(message) || fresh.has(message)) continue;
      if (left.size > 0 || this.#bytes + message.length > WAITING_BYTES_MAX) {
        left.add(message);
        continue;
      }
      this.#bytes += message.length;
      fresh.add(message);
    }
    const chosen = left.size === 0 ? messages : messages.filter((message) => !left.has(message));
    this.dropped += messages.length - chosen.length;
    for (const message of chosen) if (fresh.delete(message)) this.#numbers.set(message, this.#numbers.size);
    return chosen;
  }
}

export class WaitingIn {
  readonly #messages: Buffer[] = [];
  #bytes = 0;

  /** Throws RangeError when it is not what `WaitingOut` made, in the same order. */
  decode(source: Source): Buffer[] {
    const count = source.take(WORD).readUInt32LE();
    const head = source.take(count * ENTRY_BYTES);
    return Array.from({ length: count }, (_, index) => {
      const number = head.readUInt32LE(index * ENTRY_BYTES);
      const size = head.readUInt32LE(index * ENTRY_BYTES + WORD);
      if (number === this.#messages.length) this.#keep(source.take(size));
      const message = this.#messages[number];
      if (message?.length !== size) throw new RangeError(`migration: no message ${number} of ${size} bytes`);
      return message;
    });
  }

  /** A copy: it outlives the batch. */
  #keep(bytes: Buffer): void {
    this.#bytes += bytes.length;
    if (this.#bytes > WAITING_BYTES_MAX) throw new RangeError("migration: too many bytes wait");
    this.#messages.push(Buffer.from(bytes));
  }
}
