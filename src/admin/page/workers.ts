/**
 * The table of workers. 256 of them are more than is worth painting each second: rows that are scrolled into view always
 * are, the others in turns.
 */
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
  /** The largest first, when somebody sorts by it. */
  readonly value?: (row: Row) => number;
}

type Figure = number | null | undefined;

function figure(title: string, format: (value: Figure) => string, value: (row: Row) => Figure): Column {
  return { title, number: true, tell: (row) => format(value(row)), value: (row) => value(row) ?? 0 };
}

const COLUMNS: readonly Column[] = [
  { title: "Worker", value: ({ worker }) => -worker.slot, tell: ({ worker }) => String(worker.slot) },
  { title: "State", tell: ({ worker }) => worker.state },
  { title: "Generation", number: true, tell: ({ worker }) => String(worker.generation) },
  figure("Connections", count, ({ worker }) => worker.open),
  figure("Requests/s", short, ({ requests }) => requests),
  figure("CPU", percent, ({ worker }) => worker.cpuPercent),
  figure("Memory", bytes, ({ worker }) => worker.memoryBytes),
  figure("Loop p99", milliseconds, ({ worker }) => worker.loopDelayMs),
  { ...figure("In flight", count, ({ worker }) => worker.inFlight), minor: true },
  { ...figure("Queued", count, ({ worker }) => worker.waiting), minor: true },
  { ...figure("Restarts", count, ({ worker }) => worker.restarts), minor: true },
  { title: "Process", number: true, minor: true, tell: ({ worker }) => String(worker.pid) },
];

function classOf({ number = false, minor = false }: Column): string {
  return [number ? "number" : "", minor ? "minor" : ""].join(" ").trim();
}

/** Rows out of view are painted every so many seconds. */
const TURNS = 8;

/** Notices which rows are in view, and paints those that come into it. */
class View {
  readonly #paints = new Map<Element, () => void>();
  readonly #seen = new Set<Element>();
  readonly #observer: IntersectionObserver;
  turn = 0;

  constructor(root: Element | null) {
    this.#observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (!isIntersecting) this.#seen.delete(target);
          else this.#paints.get(target)?.();
          if (isIntersecting) this.#seen.add(target);
          if (!target.isConnected) this.#forget(target);
        }
      },
      { root, rootMargin: "60px" },
    );
  }

  add(row: Element, paint: () => void): void {
    this.#paints.set(row, paint);
    this.#observer.observe(row);
  }

  isDue(row: Element, slot: number): boolean {
    return this.#seen.has(row) || slot % TURNS === this.turn % TURNS;
  }

  #forget(row: Element): void {
    this.#paints.delete(row);
    this.#seen.delete(row);
    this.#observer.unobserve(row);
  }
}

function makeRow(view: View, first: Row): { element: Element; update(row: Row): void } {
  const cells = COLUMNS.map((column, index) =>
    make(index === 0 ? "th" : "td", { class: classOf(column), ...(index === 0 ? { scope: "row" } : {}) }),
  );
  const badge = make("span", { class: "badge small" });
  cells[1]?.append(badge);
  const element = make("tr", {}, ...cells);
  let latest = first;
  const paint = (): void => {
    setData(badge, "state", latest.worker.state);
    for (const [index, { tell }] of COLUMNS.entries()) {
      const cell = index === 1 ? badge : cells[index];
      if (cell) setText(cell, tell(latest));
    }
  };
  paint();
  view.add(element, paint);
  const update = (row: Row): void => {
    latest = row;
    if (view.isDue(element, row.worker.slot)) paint();
  };
  return { element, update };
}

export class Workers {
  readonly #rows: KeyedList<Row>;
  readonly #view: View;
  readonly #summary: HTMLElement = byId("workers-summary", HTMLElement);
  #sorted: Column | undefined = COLUMNS[0];
  #shown: readonly Row[] = [];

  constructor() {
    const table = byId("workers", HTMLTableElement);
    const heads = COLUMNS.map((column) => this.#head(column));
    table.tHead?.rows[0]?.append(...heads);
    const [body] = table.tBodies;
    this.#view = new View(table.parentElement);
    const keyOf = ({ worker }: Row): string => String(worker.slot);
    this.#rows = new KeyedList(body ?? table, keyOf, (row) => makeRow(this.#view, row));
  }

  show(event: PageEvent, previous: PageEvent | undefined): void {
    const before = new Map(previous?.workers.map((worker) => [worker.slot, worker.requests]));
    const rows = event.workers.map((worker) => {
      const requests = ratePerSecond(previous, event, (each) =>
        each === event ? worker.requests : before.get(worker.slot),
      );
      return { worker, requests };
    });
    this.#shown = rows;
    this.#view.turn += 1;
    this.#sort();
    const serving = event.workers.filter(({ state }) => state === "accepting").length;
    const restarts = event.totals.restarts > 0 ? `, ${count(event.totals.restarts)} replaced so far` : "";
    setText(this.#summary, `${serving} of ${event.workers.length} accept${restarts}`);
  }

  #head(column: Column): HTMLElement {
    const head = make("th", { scope: "col", class: classOf(column) });
    if (!column.value) {
      head.append(column.title);
      return head;
    }
    const button = make("button", { type: "button", class: "sort" }, column.title);
    const sorted = (): string => (column === COLUMNS[0] ? "ascending" : "descending");
    button.addEventListener("click", () => {
      this.#sorted = column;
      for (const other of head.parentElement?.children ?? []) other.ariaSort = other === head ? sorted() : null;
      this.#sort();
    });
    if (column === this.#sorted) head.ariaSort = sorted();
    head.append(button);
    return head;
  }

  #sort(): void {
    const { value = () => 0 } = this.#sorted ?? {};
    this.#rows.show(this.#shown.toSorted((a, b) => value(b) - value(a)));
  }
}
