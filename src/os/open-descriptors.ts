/**
 * How many descriptors this process has open, asked once a second. Since Linux 6.2 the size of /proc/self/fd is their
 * number (proc(5)). Before, it is 0, and they have to be listed, which takes 0.3 µs for each: so that is done only
 * while few connections are open, and what is not a connection is taken to stay the same meanwhile.
 */
import { readdirSync, statSync } from "node:fs";

const FOLDER = "/proc/self/fd";
/** With more connections than this nothing is listed, unless nothing ever was. */
const FEW = 256;

export class OpenDescriptors {
  readonly #sizeOf: () => number;
  /** Those that were no connections; -1: never listed. */
  #others = -1;

  /** `sizeOf`: of the folder, where it is not the kernel that says it. */
  constructor(sizeOf: () => number = () => statSync(FOLDER).size) {
    this.#sizeOf = sizeOf;
  }

  /** `connections`: those that have a descriptor. 0 where /proc does not tell. */
  count(connections: number): number {
    try {
      const size = this.#sizeOf();
      if (size > 0) return size;
      // The one that the list is read by is on it.
      if (connections <= FEW || this.#others < 0) this.#others = readdirSync(FOLDER).length - 1 - connections;
      return this.#others + connections;
    } catch {
      return 0;
    }
  }
}
