/** Cuts a stream into lines of bounded length. What is over the bound is never kept. */

/** Complete lines, without their ends; `overflow` when the next one is longer than allowed. */
export interface CutLines {
  readonly lines: readonly string[];
  readonly overflow: boolean;
}

export class LineCutter {
  readonly #maxBytes: number;
  #rest: Buffer = Buffer.alloc(0);

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Buffer): CutLines {
    let buffer = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const lines: string[] = [];
    for (let end = buffer.indexOf(10); end >= 0 && end <= this.#maxBytes; end = buffer.indexOf(10)) {
      lines.push(buffer.toString("utf8", 0, end));
      buffer = buffer.subarray(end + 1);
    }
    const overflow = buffer.length > this.#maxBytes;
    // A copy, so that a short rest does not hold the large chunk it came in.
    this.#rest = overflow ? Buffer.alloc(0) : Buffer.from(buffer);
    return { lines, overflow };
  }
}
