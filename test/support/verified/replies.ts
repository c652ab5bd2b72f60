/**
 * The lines of one connection and the check of what comes back: each once, in order, byte for byte. A reply is the line
 * itself, or, from a service that is asked who it is, a word in front of it (`tag`): a pid, a version. Nothing that
 * goes wrong hides what goes wrong after it: the check finds its place again by the numbers in the line.
 */

const PATTERN = Array.from({ length: 512 }, (_, index) => String.fromCharCode(33 + ((index * 37) % 94))).join("");
/** Lengths from here on, so that lines end at all places of a segment. */
const LEAST = 8;
const SPREAD = 200;

/** Without the newline. Differs in every line of every connection. */
export function lineOf(connection: number, sequence: number): string {
  const mix = connection * 31 + sequence * 7;
  return `${connection} ${sequence} ${PATTERN.slice(mix % 97, (mix % 97) + LEAST + (mix % SPREAD))}`;
}

export type Verdict = "right" | "repeated" | "reordered" | "wrong";

export class Replies {
  readonly #connection: number;
  readonly #tagged: boolean;
  readonly #missing: Set<number> = new Set();
  #text = "";
  /** Number of the reply that is due next. */
  next = 0;
  tag = "";

  constructor(connection: number, tagged: boolean) {
    this.#connection = connection;
    this.#tagged = tagged;
  }

  /** Replies that were passed over and have not come. */
  get missing(): number {
    return this.#missing.size;
  }

  /** The whole lines that a chunk completes. */
  cut(chunk: string): string[] {
    const lines = (this.#text + chunk).split("\n");
    this.#text = lines.pop() ?? "";
    return lines;
  }

  /** Judges a line when replies up to, but not including, `sent` can have come. */
  judge(text: string, sent: number): Verdict {
    const space = this.#tagged ? text.indexOf(" ") : -1;
    const line = text.slice(space + 1);
    const sequence = Number(line.split(" ", 2)[1]);
    if (!(sequence >= 0 && sequence < sent) || line !== lineOf(this.#connection, sequence)) return "wrong";
    this.tag = text.slice(0, Math.max(0, space));
    if (sequence < this.next) return this.#missing.delete(sequence) ? "reordered" : "repeated";
    while (this.next < sequence) this.#missing.add(this.next++);
    this.next += 1;
    return "right";
  }
}
