/** The report that a person reads: machine and commands first, then for each scenario the peers and the comparison. */
import { describeFigure, findFigure, judge } from "./figures.ts";
import type { PeerId } from "./peers.ts";
import { type Column, type Fault, metricByRound, type Outcome, type Row, type Sample } from "./scenario.ts";
import { type Ratio, ratio, type Spread, spread } from "./statistics.ts";
import { table } from "./table.ts";

const NONE = "–";
/** Fewer rounds than this prove nothing, and the report says so. */
const ENOUGH_ROUNDS = 5;

interface Comparison {
  /** "Go net", or the metric's own name for a figure without a peer. */
  with: string;
  ratio?: Ratio;
  /** What is judged: the median of the rounds. */
  value: number;
  figure?: string;
  verdict?: "ok" | "bound" | "miss";
}

function showSpread(values: Spread | undefined, column: Pick<Column<never>, "show" | "spread">): string {
  if (values === undefined) return NONE;
  const { show } = column;
  const median = show(values.median);
  return column.spread === true && values.count > 1 ? `${median} (${show(values.min)}–${show(values.max)})` : median;
}

function peerCells<S extends Sample>(row: Row<S>, runs: number, columns: readonly Column<S>[]): string[] {
  const cells = columns.map((column) => {
    const values = row.samples.flatMap((sample) => (sample === undefined ? [] : (column.of(sample) ?? [])));
    return showSpread(spread(values), column);
  });
  const valid = row.samples.filter((sample) => sample !== undefined).length;
  return [valid === runs ? row.peer.name : `${row.peer.name} [${valid} of ${runs} runs]`, ...cells];
}

/** headrace against every other peer, and against the absolute figure where there is one. */
export function compare<S extends Sample>({ scenario, rows }: Outcome<S>): Comparison[] {
  const headrace = rows.find((row) => row.peer.id === "headrace");
  if (headrace === undefined) return [];
  const { suite, connections, against, metric, judged } = scenario;
  const ours = metricByRound(headrace, metric);
  const judgement = (value: number, peer?: PeerId): Pick<Comparison, "figure" | "verdict"> => {
    const figure = judged ? findFigure(suite, peer, connections) : undefined;
    return figure === undefined ? {} : { figure: describeFigure(figure), verdict: judge(figure, value) };
  };
  const comparisons = rows.flatMap((row): Comparison[] => {
    const found = against.includes(row.peer.id) ? ratio(ours, metricByRound(row, metric)) : undefined;
    if (found === undefined) return [];
    const value = found.byRound.median;
    return [{ with: row.peer.name, ratio: found, value, ...judgement(value, row.peer.id) }];
  });
  const own = spread(ours.filter((value) => value !== undefined));
  const alone = own === undefined ? {} : judgement(own.median);
  if (own !== undefined && alone.figure !== undefined)
    comparisons.push({ with: metric.title, value: own.median, ...alone });
  return comparisons;
}

function comparisonCells(comparison: Comparison): string[] {
  const { ratio: found, value } = comparison;
  const two = (number: number): string => number.toFixed(2);
  return [
    comparison.with,
    found === undefined ? two(value) : showSpread(found.byRound, { show: two, spread: true }),
    found === undefined ? NONE : two(found.ofMedians),
    comparison.figure ?? NONE,
    comparison.verdict ?? NONE,
  ];
}

/** One line for each cause, however often it struck: "Go net, rounds 1, 3: …". */
function describeFaults(faults: readonly Fault[]): string[] {
  const causes = new Map<string, { fault: Fault; rounds: number[] }>();
  for (const fault of faults) {
    const key = `${fault.peer}: ${fault.text}`;
    const entry = causes.get(key) ?? { fault, rounds: [] };
    entry.rounds.push(fault.round);
    causes.set(key, entry);
  }
  return [...causes.values()].map(
    ({ fault, rounds }) => `${fault.peer}, round${rounds.length > 1 ? "s" : ""} ${rounds.join(", ")}: ${fault.text}`,
  );
}

/** One scenario, as text. */
export function describeOutcome<S extends Sample>(outcome: Outcome<S>, runs: number): string {
  const { scenario, rows, faults } = outcome;
  const valid = rows.flatMap((row) => row.samples).filter((sample) => sample !== undefined);
  const parts = [
    `## ${scenario.title}`,
    table(
      [`median of ${runs} (min–max)`, ...scenario.columns.map((column) => column.title)],
      rows.map((row) => peerCells(row, runs, scenario.columns)),
    ),
  ];
  const comparisons = compare(outcome);
  if (comparisons.length > 0) {
    const head = [`headrace to …: ${scenario.metric.title}`, "by round", "of medians", "to reach", ""];
    parts.push(table(head, comparisons.map(comparisonCells)));
  }
  const remarks = scenario.remarks?.(valid) ?? [];
  if (runs < ENOUGH_ROUNDS)
    remarks.push(`${runs} rounds are too few to prove anything; ${ENOUGH_ROUNDS} are the least.`);
  if (remarks.length > 0) parts.push(remarks.join("\n"));
  if (faults.length > 0) parts.push(["FAULTS (these runs are not counted):", ...describeFaults(faults)].join("\n  "));
  return `${parts.join("\n\n")}\n`;
}

/** `name  value` lines. */
export function describeFacts(facts: readonly (readonly [string, string])[]): string {
  const width = Math.max(...facts.map(([name]) => name.length));
  return facts.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}
