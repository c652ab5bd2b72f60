/**
 * What happens to the server while somebody watches: changes on order, processes that come and go, the generation. It
 * is read off the difference of two events, so the page needs no log of the server's.
 */
import type { PageEvent } from "#src/admin/page-events.js";
import { byId, KeyedList, make, setText } from "./elements.js";
import { clock, count, duration } from "./format.js";

/** Entries that are kept, also on a day with many changes. */
const MOST_ENTRIES = 60;
/** Times that are marked in the plots. */
const MOST_MARKS = 40;

export interface Entry {
  readonly atMs: number;
  readonly kind: "change" | "done" | "failed" | "process" | "contact";
  readonly text: string;
}

/** What has changed between two events, in words. */
export function changesBetween(before: PageEvent | undefined, now: PageEvent): Entry[] {
  const atMs = now.atMs;
  if (!before) return now.lastChange ? [changeEntry(now)] : [];
  const entries: Entry[] = [];
  const [was, is] = [before.lastChange, now.lastChange];
  if (is && (was?.at !== is.at || was.outcome !== is.outcome)) entries.push(changeEntry(now));
  if (now.generation !== before.generation) {
    entries.push({ atMs, kind: "change", text: `generation ${now.generation} serves (process ${now.pid})` });
  } else if (now.pid !== before.pid) {
    entries.push({ atMs, kind: "change", text: `the server was started again (process ${now.pid})` });
  }
  if (now.health !== before.health) {
    entries.push({ atMs, kind: now.health === "ok" ? "done" : "failed", text: `health: ${now.health}` });
  }
  const pids = new Map(before.workers.map((worker) => [worker.slot, worker]));
  const replaced = now.workers.filter(({ slot, pid }) => pids.has(slot) && pids.get(slot)?.pid !== pid);
  if (replaced.length > 4) {
    entries.push({ atMs, kind: "process", text: `${replaced.length} workers have new processes` });
  } else {
    for (const { slot, pid } of replaced) {
      entries.push({ atMs, kind: "process", text: `worker ${slot}: process ${pids.get(slot)?.pid} → ${pid}` });
    }
  }
  if (now.workers.length !== before.workers.length) {
    entries.push({ atMs, kind: "process", text: `workers: ${before.workers.length} → ${now.workers.length}` });
  }
  const left = before.draining.filter(({ pid }) => !now.draining.some((each) => each.pid === pid));
  for (const { pid } of left.slice(0, 4))
    entries.push({ atMs, kind: "process", text: `process ${pid} has drained and left` });
  return entries;
}

function changeEntry({ lastChange, atMs }: PageEvent): Entry {
  const { outcome = "done", message = "", at = "" } = lastChange ?? {};
  return { atMs: Date.parse(at) || atMs, kind: outcome === "running" ? "change" : outcome, text: message };
}

/** Processes of one kind that hold connections. */
interface Share {
  readonly key: string;
  readonly label: string;
  readonly open: number;
  readonly of: number;
  readonly old: boolean;
}

function sharesOf(event: PageEvent): Share[] {
  const { workers, draining, generation } = event;
  const serving = workers.reduce((sum, { open }) => sum + open, 0);
  const all = serving + draining.reduce((sum, { open }) => sum + open, 0);
  const noun = workers.length === 1 ? "worker" : "workers";
  return [
    {
      key: "serving",
      label: `generation ${generation}, ${workers.length} ${noun}`,
      open: serving,
      of: all,
      old: false,
    },
    ...draining.slice(0, 12).map(({ pid, generation: from, open, since }) => ({
      key: `draining ${pid}`,
      label: `generation ${from}, process ${pid}, draining for ${duration(event.atMs - Date.parse(since))}`,
      ...{ open, of: all, old: true },
    })),
  ];
}

function makeShare(): { element: Element; update(share: Share): void } {
  const [label, open, bar] = [make("span"), make("span", { class: "number" }), make("span", { class: "filling" })];
  const element = make(
    "div",
    { class: "share" },
    label,
    open,
    make("span", { class: "meter", "aria-hidden": "true" }, bar),
  );
  const update = (share: Share): void => {
    setText(label, share.label);
    setText(open, `${count(share.open)} open`);
    element.classList.toggle("old", share.old);
    bar.style.width = `${share.of > 0 ? (100 * share.open) / share.of : 0}%`;
  };
  return { element, update };
}

export class Changes {
  /** When a change began or ended, in seconds: the plots mark them. */
  readonly marks: number[] = [];
  readonly #log: HTMLElement = byId("changes", HTMLElement);
  readonly #shares: KeyedList<Share> = new KeyedList(byId("crew", HTMLElement), ({ key }) => key, makeShare);

  show(event: PageEvent, previous: PageEvent | undefined): void {
    this.#shares.show(sharesOf(event));
    for (const entry of changesBetween(previous, event)) this.add(entry);
  }

  add({ atMs, kind, text }: Entry): void {
    if (kind !== "process") this.marks.push(atMs / 1000);
    if (this.marks.length > MOST_MARKS) this.marks.shift();
    const entry = make("li", { class: kind }, make("time", {}, clock(atMs)), make("span", {}, text));
    this.#log.prepend(entry);
    while (this.#log.children.length > MOST_ENTRIES) this.#log.lastElementChild?.remove();
  }
}
