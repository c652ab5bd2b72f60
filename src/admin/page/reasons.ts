/** Closes and rejections by reason, the busiest first; those that never happened are left out. */
import type { PageEvent } from "#src/admin/page-events.js";
import { byId, KeyedList, make, setText } from "./elements.js";
import { count, short } from "./format.js";
import { ratePerSecond } from "./history.js";

interface Row {
  readonly kind: "closed" | "rejected" | "not accepted";
  readonly reason: string;
  readonly total: number;
  readonly rate: number | null;
}

const GROUPS = [
  ["closed", "closes"],
  ["rejected", "rejections"],
  ["not accepted", "acceptErrors"],
] as const;

function rowsOf(event: PageEvent, previous: PageEvent | undefined): Row[] {
  return GROUPS.flatMap(([kind, group]) => {
    const rows = Object.entries<number>(event[group]).map(([reason, total]) => {
      // A reason that was not there a second ago had happened no time.
      const at = (each: PageEvent): number => new Map(Object.entries<number>(each[group])).get(reason) ?? 0;
      return { kind, reason, total, rate: ratePerSecond(previous, event, at) };
    });
    // By what there was in all: an order by rates would change every second.
    return rows.sort((a, b) => b.total - a.total || a.reason.localeCompare(b.reason));
  });
}

function makeRow({ kind, reason }: Row): { element: Element; update(row: Row): void } {
  const [rate, total] = [make("td", { class: "number" }), make("td", { class: "number" })];
  const name = make("th", { scope: "row" }, reason);
  if (kind !== "closed") name.append(" ", make("span", { class: "badge small", "data-state": "rejected" }, kind));
  const update = (row: Row): void => {
    setText(rate, short(row.rate));
    setText(total, count(row.total));
  };
  return { element: make("tr", {}, name, rate, total), update };
}

export class Reasons {
  readonly #rows: KeyedList<Row>;

  constructor() {
    const table = byId("reasons", HTMLTableElement);
    const [body] = table.tBodies;
    this.#rows = new KeyedList(body ?? table, ({ kind, reason }) => `${kind} ${reason}`, makeRow);
  }

  show(event: PageEvent, previous: PageEvent | undefined): void {
    this.#rows.show(rowsOf(event, previous));
  }
}
