/** The table of workers; 256 of them are as many rows, of which only cells that changed are touched. */
import type { PageEvent, PageWorker } from "#src/admin/page-events.js";
import { byId, KeyedList, make, setData, setText } from "./elements.js";
import { bytes, count, milliseconds, percent, short } from "./format.js";
import { ratePerSecond } from "./history.js";

interface Row {
  readonly worker: PageWorker;
  readonly requests: number | null;
}

interface Column {
  readonly title: string;
  /** A figure: aligned at its end. */
  readonly number?: boolean;
  /** Left out where there is little room. */
  readonly minor?: boolean;
  readonly tell: (row: Row) => string;
}

const COLUMNS: readonly Column[] = [
  { title: "Worker", tell: ({ worker }) => String(worker.slot) },
  { title: "State", tell: ({ worker }) => worker.state },
  { title: "Generation", number: true, tell: ({ worker }) => String(worker.generation) },
  { title: "Connections", number: true, tell: ({ worker }) => count(worker.open) },
  { title: "Requests/s", number: true, tell: ({ requests }) => short(requests) },
  { title: "CPU", number: true, tell: ({ worker }) => percent(worker.cpuPercent) },
  { title: "Memory", number: true, tell: ({ worker }) => bytes(worker.memoryBytes) },
  { title: "Loop p99", number: true, tell: ({ worker }) => milliseconds(worker.loopDelayMs) },
  { title: "In flight", number: true, minor: true, tell: ({ worker }) => count(worker.inFlight) },
  { title: "Queued", number: true, minor: true, tell: ({ worker }) => count(worker.waiting) },
  { title: "Restarts", number: true, minor: true, tell: ({ worker }) => count(worker.restarts) },
  { title: "Process", number: true, minor: true, tell: ({ worker }) => String(worker.pid) },
];

function classOf({ number = false, minor = false }: Column): string {
  return [number ? "number" : "", minor ? "minor" : ""].join(" ").trim();
}

function makeRow(): { element: Element; update(row: Row): void } {
  const cells = COLUMNS.map((column, index) =>
    make(index === 0 ? "th" : "td", { class: classOf(column), ...(index === 0 ? { scope: "row" } : {}) }),
  );
  const badge = make("span", { class: "badge small" });
  cells[1]?.append(badge);
  const update = (row: Row): void => {
    setData(badge, "state", row.worker.state);
    for (const [index, { tell }] of COLUMNS.entries()) {
      const cell = index === 1 ? badge : cells[index];
      if (cell) setText(cell, tell(row));
    }
  };
  return { element: make("tr", {}, ...cells), update };
}

export class Workers {
  readonly #rows: KeyedList<Row>;
  readonly #summary: HTMLElement = byId("workers-summary", HTMLElement);

  constructor() {
    const table = byId("workers", HTMLTableElement);
    const heads = COLUMNS.map((column) => make("th", { scope: "col", class: classOf(column) }, column.title));
    table.tHead?.rows[0]?.append(...heads);
    const [body] = table.tBodies;
    this.#rows = new KeyedList(body ?? table, ({ worker }) => String(worker.slot), makeRow);
  }

  show(event: PageEvent, previous: PageEvent | undefined): void {
    const before = new Map(previous?.workers.map((worker) => [worker.slot, worker.requests]));
    const rows = event.workers.map((worker) => {
      const requests = ratePerSecond(previous, event, (each) =>
        each === event ? worker.requests : before.get(worker.slot),
      );
      return { worker, requests };
    });
    this.#rows.show(rows);
    const serving = event.workers.filter(({ state }) => state === "accepting").length;
    const restarts = event.totals.restarts > 0 ? `, ${count(event.totals.restarts)} replaced so far` : "";
    setText(this.#summary, `${serving} of ${event.workers.length} accept${restarts}`);
  }
}
