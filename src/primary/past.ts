/**
 * What the dead workers of one slot counted. What was only true while they lived (connections, requests in flight,
 * memory) ends with them. Their connections do too: whatever had begun in a worker and neither ended nor left it was
 * cut by its death, so for each listener accepted + moved in = moved out + closed.
 */
import { reasonIndex } from "../base/reasons.ts";
import { REMOVED_LISTENERS } from "../control/metrics-snapshot.ts";
import {
  HEAD_CELLS,
  LISTENER_CLOSED,
  LISTENER_DATAGRAMS,
  LISTENER_FIELDS,
  ROW_CELLS,
  WORKER_FIELDS,
  type WorkerBlock,
} from "../os/scoreboard.ts";

const ACCEPTED = LISTENER_FIELDS.indexOf("accepted");
const MOVED_IN = LISTENER_FIELDS.indexOf("movedIn");
const MOVED_OUT = LISTENER_FIELDS.indexOf("movedOut");
const KILLED = LISTENER_CLOSED + reasonIndex("killed");
const NOW_OF_ROW = (["active", "prefaces", "inFlight"] as const).map((field) => LISTENER_FIELDS.indexOf(field));
const NOW_OF_HEAD = (
  [
    "clock",
    "pid",
    "startedAt",
    "accepting",
    "open",
    "bytesHeldIn",
    "bytesHeldOut",
    "waiting",
    "loopDelayMean",
    "loopDelayP99",
    "loopDelayMax",
    "openFds",
    "heapBytes",
    "oldestSeconds",
  ] as const
).map((field) => WORKER_FIELDS.indexOf(field));

/**
 * accepted + moved in - moved out - closed of a row: its connections, as long as everything is counted. Less than what
 * `active` and `prefaces` say, or more, for the moment between two stores.
 */
export function begunAndNotEnded(row: Float64Array): number {
  let open = (row[ACCEPTED] ?? 0) + (row[MOVED_IN] ?? 0) - (row[MOVED_OUT] ?? 0);
  for (let cell = LISTENER_CLOSED; cell < LISTENER_DATAGRAMS; cell++) open -= row[cell] ?? 0;
  return open;
}

/** Adds `from` to `into`, cell by cell. */
export function addCells(into: Float64Array, from: Float64Array): void {
  for (let cell = 0; cell < into.length; cell++) into[cell] = (into[cell] ?? 0) + (from[cell] ?? 0);
}

export class Past {
  /** As a block's head, without what is only true now. */
  readonly head: Float64Array = new Float64Array(HEAD_CELLS);
  /** By number, of listeners that there are. */
  readonly rows: Map<number, Float64Array> = new Map();
  /** Of rows that are another's by now, by the listener's name, which may have moved to another row. */
  readonly gone: Map<string, Float64Array> = new Map();

  /** Adds what a worker counted that has died. */
  take(block: WorkerBlock, rows: readonly number[]): void {
    addCells(this.head, block.head);
    for (const cell of NOW_OF_HEAD) this.head[cell] = 0;
    for (const index of rows) {
      const counted = block.row(index);
      const row = this.rows.get(index) ?? new Float64Array(ROW_CELLS);
      this.rows.set(index, row);
      addCells(row, counted);
      row[KILLED] = (row[KILLED] ?? 0) + begunAndNotEnded(counted);
      for (const cell of NOW_OF_ROW) row[cell] = 0;
    }
  }

  /** The row is another listener's from now on; what `name` counted in it goes on. */
  forget(row: number, name: string): void {
    const counted = this.rows.get(row);
    if (counted) this.#add(name, counted);
    this.rows.delete(row);
  }

  /** What listeners counted that are not among `names` any more is that of all removed ones. */
  settle(names: ReadonlySet<string>): void {
    for (const [name, counted] of this.gone) {
      if (name === REMOVED_LISTENERS || names.has(name)) continue;
      this.gone.delete(name);
      this.#add(REMOVED_LISTENERS, counted);
    }
  }

  #add(name: string, counted: Float64Array): void {
    const gone = this.gone.get(name) ?? new Float64Array(ROW_CELLS);
    this.gone.set(name, gone);
    addCells(gone, counted);
  }
}
