/** The table of listeners: where it listens, what it serves, and how fast that is. */
import type { PageEvent, PageListener } from "#src/admin/page-events.js";
import { byId, KeyedList, make, setText } from "./elements.js";
import { count, milliseconds, short } from "./format.js";
import { ratePerSecond } from "./history.js";
import { LatencyWindow, quantile } from "./latency.js";

const TITLES = ["Name", "Address", "Service", "Connections", "New/s", "Requests/s", "p50", "p99"] as const;
/** From here on figures. */
const FIGURES = 3;
/** Seconds. */
const WINDOW = 5;
const DAY_MS = 86_400_000;

interface Row {
  readonly listener: PageListener;
  readonly accepted: number | null;
  readonly requests: number | null;
}

function makeRow(): { element: Element; update(row: Row): void } {
  const cells = TITLES.map((_, index) => make("td", index >= FIGURES ? { class: "number" } : {}));
  const window = new LatencyWindow(WINDOW);
  const update = ({ listener, accepted, requests }: Row): void => {
    const { name, address, service, datagrams, durations } = listener;
    const recent = window.push(durations);
    const figures = datagrams
      ? [`${short(datagrams.lost)} lost`, "", short(requests), "", ""]
      : [
          count(listener.open),
          short(accepted),
          short(requests),
          milliseconds(quantile(recent, 0.5)),
          milliseconds(quantile(recent, 0.99)),
        ];
    for (const [index, text] of [name, address, service, ...figures].entries()) {
      const cell = cells[index];
      if (cell) setText(cell, text);
    }
  };
  return { element: make("tr", {}, ...cells), update };
}

/** Datagrams are a UDP listener's requests. */
function requestsOf(listener: PageListener | undefined): number | undefined {
  return listener?.datagrams?.received ?? listener?.requests;
}

export class Listeners {
  readonly #rows: KeyedList<Row>;
  readonly #summary: HTMLElement = byId("listeners-summary", HTMLElement);

  constructor() {
    const table = byId("listeners", HTMLTableElement);
    const heads = TITLES.map((title, index) =>
      make("th", { scope: "col", ...(index >= FIGURES ? { class: "number" } : {}) }, title),
    );
    table.tHead?.rows[0]?.append(...heads);
    const [body] = table.tBodies;
    this.#rows = new KeyedList(body ?? table, ({ listener }) => listener.name, makeRow);
  }

  show(event: PageEvent, previous: PageEvent | undefined): void {
    const find = (within: PageEvent, name: string): PageListener | undefined =>
      within.listeners.find((each) => each.name === name);
    const rows = event.listeners.map((listener) => ({
      listener,
      accepted: ratePerSecond(previous, event, (each) => find(each, listener.name)?.accepted),
      requests: ratePerSecond(previous, event, (each) => requestsOf(find(each, listener.name))),
    }));
    this.#rows.show(rows);
    setText(this.#summary, certificates(event));
  }
}

function certificates({ tls, atMs }: PageEvent): string {
  if (tls.problems.length > 0) return `Certificates not used: ${tls.problems.join("; ")}`;
  if (tls.notAfter === undefined) return "";
  const days = Math.floor((Date.parse(tls.notAfter) - atMs) / DAY_MS);
  return days < 0 ? "A certificate has expired" : `The first certificate ends in ${days} days`;
}
