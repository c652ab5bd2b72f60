/**
 * The table of connections: asked for when somebody wants it, a page at a time, and never by itself, since every answer
 * costs the workers something. Sorting and filtering are the server's.
 */

import type { PageEvent } from "#src/admin/page-events.js";
import type { ConnectionPage, ConnectionRow, ConnectionSort } from "#src/control/inspection.js";
import { byId, make, setHidden, setText } from "./elements.js";
import { bytes, clock, count, duration, milliseconds } from "./format.js";

const ROWS = 100;

interface Column {
  readonly title: string;
  readonly number?: boolean;
  readonly sort?: ConnectionSort;
  readonly tell: (row: ConnectionRow) => string;
}

const COLUMNS: readonly Column[] = [
  { title: "Client", tell: ({ remote }) => remote },
  { title: "Listener", tell: ({ listener }) => listener },
  { title: "Worker", number: true, tell: ({ worker }) => String(worker) },
  { title: "State", tell: ({ state, tls }) => (tls ? `${state}, ${tls}` : state) },
  { title: "Age", number: true, sort: "age", tell: ({ ageMs }) => duration(ageMs) },
  { title: "Idle", number: true, sort: "idle", tell: ({ idleMs }) => duration(idleMs) },
  {
    title: "Received, sent",
    number: true,
    sort: "bytes",
    tell: (row) => `${bytes(row.bytesReceived)}, ${bytes(row.bytesSent)}`,
  },
  { title: "Buffered", number: true, sort: "buffered", tell: ({ bufferedBytes }) => bytes(bufferedBytes) },
  { title: "In flight", number: true, tell: ({ inFlight }) => count(inFlight) },
  { title: "Round trip", number: true, tell: ({ rttMs }) => milliseconds(rttMs) },
  { title: "Resent", number: true, tell: ({ retransmits }) => count(retransmits) },
];

export class Connections {
  readonly #summary: HTMLElement = byId("connections-summary", HTMLElement);
  readonly #region: HTMLElement = byId("connections-region", HTMLElement);
  readonly #pages: HTMLElement = byId("connections-pages", HTMLElement);
  readonly #table: HTMLTableElement = byId("connections", HTMLTableElement);
  readonly #address: HTMLInputElement = byId("filter-address", HTMLInputElement);
  readonly #listener: HTMLSelectElement = byId("filter-listener", HTMLSelectElement);
  readonly #worker: HTMLSelectElement = byId("filter-worker", HTMLSelectElement);
  readonly #load: HTMLButtonElement = byId("connections-load", HTMLButtonElement);
  readonly #before: HTMLButtonElement = byId("page-before", HTMLButtonElement);
  readonly #after: HTMLButtonElement = byId("page-after", HTMLButtonElement);
  readonly #dialog: HTMLDialogElement;
  readonly #onSignedOut: () => void;
  readonly #heads = new Map<ConnectionSort, HTMLElement>();
  #sort: ConnectionSort = "age";
  #order: "asc" | "desc" = "desc";
  #offset = 0;
  #asked: AbortController | undefined;

  constructor(onSignedOut: () => void) {
    this.#onSignedOut = onSignedOut;
    const dialog = document.getElementById("kill");
    if (!(dialog instanceof HTMLDialogElement)) throw new Error("no dialog");
    this.#dialog = dialog;
    this.#table.tHead?.rows[0]?.append(
      ...COLUMNS.map((column) => this.#head(column)),
      make("th", { scope: "col" }, make("span", { class: "unseen" }, "Kill")),
    );
    byId("connections-filter", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#show(0);
    });
    this.#before.addEventListener("click", () => void this.#show(Math.max(0, this.#offset - ROWS)));
    this.#after.addEventListener("click", () => void this.#show(this.#offset + ROWS));
  }

  /** Whatever there is to choose from. */
  choices({ listeners, workers }: PageEvent): void {
    choose(
      this.#listener,
      listeners.flatMap(({ name, datagrams }) => (datagrams ? [] : [name])),
    );
    choose(
      this.#worker,
      workers.map(({ slot }) => String(slot)),
    );
  }

  /** Nothing of the clients stays on the screen of who has signed out. */
  clear(): void {
    this.#asked?.abort();
    this.#table.tBodies[0]?.replaceChildren();
    setHidden(this.#region, true);
    setHidden(this.#pages, true);
    setText(this.#summary, "");
    if (this.#dialog.open) this.#dialog.close("cancel");
  }

  #head({ title, number = false, sort }: Column): HTMLElement {
    const head = make("th", { scope: "col", ...(number ? { class: "number" } : {}) });
    if (!sort) {
      head.append(title);
      return head;
    }
    const button = make("button", { type: "button", class: "sort" }, title);
    button.addEventListener("click", () => {
      this.#order = this.#sort === sort && this.#order === "desc" ? "asc" : "desc";
      this.#sort = sort;
      void this.#show(0);
    });
    head.append(button);
    this.#heads.set(sort, head);
    return head;
  }

  async #show(offset: number): Promise<void> {
    this.#asked?.abort();
    const asked = new AbortController();
    this.#asked = asked;
    setText(this.#summary, "Loading…");
    this.#region.ariaBusy = "true";
    try {
      const page = await this.#ask(offset, asked.signal);
      if (page && this.#asked === asked) this.#fill(page);
    } catch (error) {
      if (!asked.signal.aborted) setText(this.#summary, error instanceof Error ? error.message : String(error));
    }
    if (this.#asked === asked) this.#region.ariaBusy = "false";
  }

  async #ask(offset: number, signal: AbortSignal): Promise<ConnectionPage | undefined> {
    const query = new URLSearchParams({
      ...{ sort: this.#sort, order: this.#order, limit: String(ROWS), offset: String(offset) },
      ...(this.#address.value.trim() ? { address: this.#address.value.trim() } : {}),
      ...(this.#listener.value ? { listener: this.#listener.value } : {}),
      ...(this.#worker.value ? { worker: this.#worker.value } : {}),
    });
    const response = await fetch(`/connections?${query}`, { signal }).catch((cause: unknown) => {
      throw new Error("The server does not answer.", { cause });
    });
    if (response.status === 401) {
      this.#onSignedOut();
      return undefined;
    }
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok)
      throw new Error((body as { error?: string } | undefined)?.error ?? `The server answered ${response.status}.`);
    return body as ConnectionPage;
  }

  #fill({ total, offset, rows, missing }: ConnectionPage): void {
    this.#offset = offset;
    this.#table.tBodies[0]?.replaceChildren(...rows.map((row) => this.#row(row)));
    for (const [sort, head] of this.#heads) {
      const order = this.#order === "asc" ? "ascending" : "descending";
      head.setAttribute("aria-sort", sort === this.#sort ? order : "none");
    }
    setHidden(this.#region, rows.length === 0);
    setHidden(this.#pages, total <= ROWS && offset === 0);
    this.#before.disabled = offset === 0;
    this.#after.disabled = offset + rows.length >= total;
    setText(
      byId("page-where", HTMLElement),
      rows.length === 0 ? "" : `${count(offset + 1)} to ${count(offset + rows.length)} of ${count(total)}`,
    );
    const without = missing.length > 0 ? `; not answered: ${missing.join(", ")}` : "";
    setText(this.#summary, `${total === 0 ? "None" : count(total)} at ${clock(Date.now())}${without}`);
    setText(this.#load, "Refresh");
  }

  #row(row: ConnectionRow): HTMLTableRowElement {
    const cells = COLUMNS.map(({ tell, number = false }, index) =>
      index === 0
        ? make("th", { scope: "row", title: row.peer === row.remote ? row.id : `${row.id}, by ${row.peer}` }, tell(row))
        : make("td", number ? { class: "number" } : {}, tell(row)),
    );
    const button = make(
      "button",
      { type: "button", class: "danger small", "aria-label": `Kill ${row.remote}` },
      "Kill",
    );
    const element = make("tr", {}, ...cells, make("td", { class: "number" }, button));
    button.addEventListener("click", () => void this.#kill(row, element, button));
    return element;
  }

  async #kill(row: ConnectionRow, element: HTMLElement, button: HTMLButtonElement): Promise<void> {
    setText(
      byId("kill-which", HTMLElement),
      `${row.remote} on ${row.listener}, worker ${row.worker}, open for ${duration(row.ageMs)}`,
    );
    this.#dialog.returnValue = "cancel";
    this.#dialog.showModal();
    await new Promise((resolve) => this.#dialog.addEventListener("close", resolve, { once: true }));
    if (this.#dialog.returnValue !== "kill") return;
    button.disabled = true;
    const path = `/connections/${encodeURIComponent(row.id)}`;
    const response = await fetch(path, { method: "DELETE" }).catch(() => undefined);
    if (response?.status === 401) return this.#onSignedOut();
    const gone = response?.ok || response?.status === 404;
    element.classList.toggle("killed", gone ?? false);
    button.disabled = gone ?? false;
    if (gone) setText(button, response?.ok ? "Killed" : "Gone");
    setText(
      this.#summary,
      gone
        ? `${row.remote} ${response?.ok ? "was killed" : "had gone already"}`
        : `${row.remote} was not killed: ${response?.status ?? "no answer"}`,
    );
    this.#region.focus();
  }
}

/** Options of a select, the first of which means all. What is chosen stays chosen. */
function choose(select: HTMLSelectElement, values: readonly string[]): void {
  const shown = [...select.options].slice(1).map(({ value }) => value);
  if (shown.length === values.length && shown.every((value, index) => value === values[index])) return;
  const chosen = select.value;
  select.replaceChildren(
    make("option", { value: "" }, "all"),
    ...values.map((value) => make("option", { value }, value)),
  );
  select.value = values.includes(chosen) ? chosen : "";
}
