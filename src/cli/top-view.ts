/**
 * The screen of `headrace top` as lines of text, never wider or more than there is room for. Pure: the same lines go
 * to a terminal and, once, to a pipe.
 */
import { showBytes, showDuration, table } from "./table.ts";
import type { Rates, TopFigures, TopListener, TopWorker } from "./top-figures.ts";

/** How a line stands out, where it can. */
export type Emphasis = "none" | "heading" | "alarm" | "faint";

export interface ViewLine {
  readonly text: string;
  readonly emphasis: Emphasis;
}

/** What workers can be sorted by, each with its key. */
export const SORTS = {
  w: "worker",
  c: "open",
  r: "requests",
  b: "bytes",
  u: "CPU",
  m: "memory",
  h: "held",
} as const;
export type Sort = (typeof SORTS)[keyof typeof SORTS];

export interface ViewState {
  /** Undefined before the first answer. */
  readonly figures: TopFigures | undefined;
  readonly sort: Sort;
  /** The other way round than is usual: workers by number upwards, all else downwards. */
  readonly reversed: boolean;
  readonly paused: boolean;
  /** Why there are no newer figures. */
  readonly problem: string | undefined;
}

export interface Room {
  readonly columns: number;
  readonly rows: number;
}

const NO_ROOM_NEEDED: Room = { columns: Number.POSITIVE_INFINITY, rows: Number.POSITIVE_INFINITY };
const KEYS = "q quit  p pause  sort: w worker  c open  r requests  b bytes  u CPU  m memory  h held (again: other way)";

const count = (value: number): string => Math.round(value).toLocaleString("en-US");

/** A rate that is almost nothing is not nothing. */
function perSecond(value: number | undefined): string {
  if (value === undefined) return "-";
  return value > 0 && value < 9.95 ? value.toFixed(1) : count(value);
}

const bytesPerSecond = (value: number | undefined): string =>
  value === undefined ? "-" : `${showBytes(Math.round(value))}`;
const percent = (value: number | undefined): string => (value === undefined ? "?" : value.toFixed(1));
const bytes = (value: number | undefined): string => (value === undefined ? "?" : showBytes(value));

/** What others have named: one line, nothing that a terminal would obey. */
function plain(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll(/\p{Cc}/gu, "?");
}

function cut(text: string, columns: number): string {
  const letters = [...text];
  return letters.length <= columns ? text : `${letters.slice(0, Math.max(0, columns - 1)).join("")}…`;
}

const line = (text: string, emphasis: Emphasis = "none"): ViewLine => ({ text, emphasis });

function sortValue({ status, rates }: TopWorker, sort: Sort): number {
  switch (sort) {
    case "worker":
      return -status.index;
    case "open":
      return status.open;
    case "requests":
      return rates?.requests ?? 0;
    case "bytes":
      return (rates?.bytesReceived ?? 0) + (rates?.bytesSent ?? 0);
    case "CPU":
      return status.cpuPercent ?? 0;
    case "memory":
      return status.memoryBytes ?? 0;
    case "held":
      return status.bytesHeldIn + status.bytesHeldOut;
  }
}

export function sorted(workers: readonly TopWorker[], sort: Sort, reversed: boolean): TopWorker[] {
  const down = workers.toSorted((a, b) => sortValue(b, sort) - sortValue(a, sort) || a.status.index - b.status.index);
  return reversed ? down.reverse() : down;
}

function head({ status, rates }: TopFigures): ViewLine[] {
  const { version, state, health, uptimeMs, generation, configVersion, pid, lastChange, workers, draining } = status;
  const accepting = workers.filter((worker) => worker.state === "accepting").length;
  const leaving = draining.length === 0 ? "" : `, ${draining.length} draining`;
  const alarmed = health !== "ok" || accepting < workers.length ? "alarm" : "none";
  const now = Date.parse(status.startedAt) + uptimeMs;
  const change = lastChange && [
    line(
      `${lastChange.outcome === "running" ? "changing for" : "last change"} ${showDuration(now - Date.parse(lastChange.at))}${
        lastChange.outcome === "running" ? "" : " ago"
      }: ${plain(lastChange.message)}`,
      lastChange.outcome === "failed" ? "alarm" : "none",
    ),
  ];
  return [
    line(
      `headrace ${version}  ${state}  up ${showDuration(uptimeMs)}  generation ${generation}  configuration ${configVersion}`,
    ),
    line(
      `health ${health}  ${accepting} of ${workers.length} workers accept${leaving}  ` +
        `primary ${pid}: CPU ${percent(status.cpuPercent)} %, ${bytes(status.memoryBytes)}`,
      alarmed,
    ),
    line(totalsText(status.totals, rates)),
    ...(change ?? []),
  ];
}

function totalsText(totals: TopFigures["status"]["totals"], rates: Rates | undefined): string {
  return [
    `${count(totals.open)} open`,
    `${perSecond(rates?.accepted)} new/s`,
    `${perSecond(rates?.requests)} requests/s`,
    `${perSecond(rates?.shed)} shed/s`,
    `${bytesPerSecond(rates?.bytesReceived)}/s in`,
    `${bytesPerSecond(rates?.bytesSent)}/s out`,
    `${showBytes(totals.bytesHeldIn + totals.bytesHeldOut)} held`,
  ].join("  ");
}

function reasons(what: string, rates: TopFigures["closes"]): ViewLine {
  const told = rates.map(([reason, rate]) => `${reason} ${perSecond(rate)}`).join(", ");
  return line(`${what}/s: ${told || "none"}`);
}

/** A column of numbers that are text is aligned here: the table aligns only what is a number. */
function aligned(rows: readonly (readonly (string | number)[])[], left: number): ViewLine[] {
  const texts = rows.map((row) => row.map(String));
  const widths = (texts[0] ?? []).map((_, at) => Math.max(...texts.map((row) => row[at]?.length ?? 0)));
  const padded = texts.map((row) => row.map((cell, at) => (at < left ? cell : cell.padStart(widths[at] ?? 0))));
  return table(padded).map((text, at) => line(text, at === 0 ? "heading" : "none"));
}

function listenerLines(listeners: readonly TopListener[]): ViewLine[] {
  const rows = listeners.map(({ name, address, service, open, opened, requests }) => [
    plain(name),
    plain(address),
    plain(service),
    count(open),
    perSecond(opened),
    perSecond(requests),
  ]);
  return aligned([["listener", "address", "service", "open", "new/s", "req/s"], ...rows], 3);
}

/** The most telling first: a narrow terminal shows those. */
const COLUMNS = [
  "worker",
  "state",
  "open",
  "new/s",
  "req/s",
  "in/s",
  "out/s",
  "held",
  "CPU %",
  "memory",
  "restarts",
  "waiting",
  "pid",
];

function workerLines(workers: readonly TopWorker[]): ViewLine[] {
  const rows = workers.map(({ status, rates }) => [
    String(status.index),
    status.state,
    count(status.open),
    perSecond(rates?.accepted),
    perSecond(rates?.requests),
    bytesPerSecond(rates?.bytesReceived),
    bytesPerSecond(rates?.bytesSent),
    showBytes(status.bytesHeldIn + status.bytesHeldOut),
    percent(status.cpuPercent),
    bytes(status.memoryBytes),
    count(status.restarts),
    count(status.waiting),
    status.pid,
  ]);
  return aligned([COLUMNS, ...rows], 2);
}

/** As many as there is room for; the last says how many more there are. */
function fitting(lines: readonly ViewLine[], rows: number, what: string): ViewLine[] {
  if (lines.length <= rows) return [...lines];
  if (rows < 2) return [];
  const shown = lines.slice(0, rows - 1);
  return [...shown, line(`… and ${lines.length - shown.length} more ${what}`, "faint")];
}

function standing({ figures, sort, reversed, paused, problem }: ViewState): ViewLine[] {
  if (problem !== undefined) return [line(plain(problem), "alarm")];
  if (!figures) return [line("asking the server", "faint")];
  const order = `workers by ${sort}${reversed ? ", the other way round" : ""}`;
  return [line(paused ? `paused: p goes on; ${order}` : order, paused ? "alarm" : "faint")];
}

/** The screen. `keys`: somebody can press them. */
export function viewTop(state: ViewState, { columns, rows }: Room, keys: boolean): ViewLine[] {
  const { figures } = state;
  const foot = [...standing(state), ...(keys ? [line(KEYS, "faint")] : [])];
  const lines: ViewLine[] = [];
  if (figures) {
    lines.push(...head(figures), reasons("closed", figures.closes), reasons("rejected", figures.rejections), line(""));
    const listeners = listenerLines(figures.listeners);
    const workers = workerLines(sorted(figures.workers, state.sort, state.reversed));
    const room = rows - lines.length - foot.length - 2;
    // Workers come first: a server has few listeners, and many workers when somebody looks.
    const forListeners = Math.max(Math.min(listeners.length, 3), room - workers.length);
    lines.push(...fitting(listeners, Math.min(forListeners, Math.max(0, room - 2)), "listeners"), line(""));
    lines.push(...fitting(workers, rows - lines.length - foot.length - 1, "workers"), line(""));
  }
  const most = Math.max(0, rows - foot.length);
  return [...lines.slice(0, most), ...foot]
    .slice(0, rows)
    .map(({ text, emphasis }) => ({ text: cut(text, columns), emphasis }));
}

/** All of it, for a pipe. */
export function viewOnce(figures: TopFigures): string {
  const state: ViewState = { figures, sort: "worker", reversed: false, paused: false, problem: undefined };
  const lines = viewTop(state, NO_ROOM_NEEDED, false).slice(0, -2);
  return lines.map(({ text }) => `${text}\n`).join("");
}

const LINE_COLUMNS = ["open", "new/s", "req/s", "shed/s", "in/s", "out/s", "held", "closed/s", "rejected/s", "workers"];
const WIDTHS: readonly number[] = [9, 9, 10, 8, 11, 11, 11, 9, 10, 8];

const inColumns = (cells: readonly string[]): string =>
  cells.map((cell, at) => cell.padStart(WIDTHS[at] ?? 0)).join(" ");

/** What stands above the lines of `viewLine`. */
export const LINE_HEADING: string = inColumns(LINE_COLUMNS);

/** One line, for a pipe that gets one for each interval. */
export function viewLine({ status, rates, workers, closes, rejections }: TopFigures): string {
  const sum = (all: TopFigures["closes"]): number | undefined =>
    rates && all.reduce((total, [, rate]) => total + rate, 0);
  const { totals } = status;
  return inColumns([
    count(totals.open),
    perSecond(rates?.accepted),
    perSecond(rates?.requests),
    perSecond(rates?.shed),
    bytesPerSecond(rates?.bytesReceived),
    bytesPerSecond(rates?.bytesSent),
    showBytes(totals.bytesHeldIn + totals.bytesHeldOut),
    perSecond(sum(closes)),
    perSecond(sum(rejections)),
    String(workers.length),
  ]);
}
