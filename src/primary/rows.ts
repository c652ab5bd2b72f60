/**
 * Each listener's row in scoreboard and admission table. A listener keeps its row for as long as its key exists, over
 * reloads and upgrades; a row is given to another only when no worker is left that knew it as the old one's.
 */

import { HeadraceError } from "../base/errors.ts";
import type { ListenerConfig } from "../config/config.ts";
import { listenerKey } from "../config/listener-key.ts";
import { ROWS } from "../os/scoreboard.ts";

export class Rows {
  readonly #rows: Map<string, number>;

  /** `known`: of the generation before. */
  constructor(known: Iterable<readonly [string, number]> = []) {
    this.#rows = new Map(known);
  }

  get entries(): [string, number][] {
    return [...this.#rows];
  }

  /** Rows in use. */
  get used(): number[] {
    return [...this.#rows.values()];
  }

  /** Rows for `listeners`, in their order. */
  assign(listeners: readonly ListenerConfig[]): number[] {
    return listeners.map((listener) => {
      const key = listenerKey(listener);
      const row = this.#rows.get(key) ?? this.#free();
      this.#rows.set(key, row);
      return row;
    });
  }

  /** Frees the rows of all other listeners. Returns them. */
  keepOnly(listeners: readonly ListenerConfig[]): number[] {
    const keys = new Set(listeners.map(listenerKey));
    const freed = [...this.#rows].filter(([key]) => !keys.has(key));
    for (const [key] of freed) this.#rows.delete(key);
    return freed.map(([, row]) => row);
  }

  #free(): number {
    const used = new Set(this.#rows.values());
    for (let row = 0; row < ROWS; row++) if (!used.has(row)) return row;
    throw new HeadraceError(
      "change-failed",
      `more than ${ROWS} listeners at once, counting removed ones that still drain; try again later`,
    );
  }
}
