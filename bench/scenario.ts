/**
 * A scenario is one table of the report: some peers under one workload. Peers alternate, round by round, and a
 * different one begins each round, so that a machine that slows down or is disturbed slows all of them.
 */
import type { SuiteName } from "./figures.ts";
import type { Peer, PeerId } from "./peers.ts";

export interface Sample {
  /** Empty when the run counts. */
  faults: string[];
}

/** A column of the table: the median over the rounds, with the spread where it matters. */
export interface Column<S> {
  title: string;
  of(sample: S): number | undefined;
  show(value: number): string;
  spread?: boolean;
}

export interface Scenario<S extends Sample> {
  suite: SuiteName;
  title: string;
  connections: number;
  peers: readonly Peer[];
  /** With whom headrace is compared; the others only stand in the table. */
  against: readonly PeerId[];
  /** What is compared and judged. */
  metric: Column<S>;
  /** In the table after the peer's name; the metric is one of them. */
  columns: readonly Column<S>[];
  /** False when the workload is not the one that the figures speak of. */
  judged: boolean;
  measure(peer: Peer): Promise<S>;
  /** Lines beneath the table, from all samples. */
  remarks?(samples: readonly S[]): string[];
}

export interface Row<S extends Sample> {
  peer: Peer;
  /** By round. Undefined where the run failed or was faulty. */
  samples: (S | undefined)[];
}

export interface Outcome<S extends Sample> {
  scenario: Scenario<S>;
  rows: readonly Row<S>[];
  faults: readonly Fault[];
}

/** Why a run does not count. */
export interface Fault {
  peer: string;
  /** From 1. */
  round: number;
  text: string;
  /** What was measured all the same, for the raw data. */
  sample?: Sample;
}

function rotate<T>(items: readonly T[], by: number): T[] {
  const start = by % Math.max(1, items.length);
  return [...items.slice(start), ...items.slice(0, start)];
}

/** Never throws for a run that failed: it is missing from the row and explained in `faults`. */
export async function runScenario<S extends Sample>(
  scenario: Scenario<S>,
  runs: number,
  progress: (text: string) => void,
): Promise<Outcome<S>> {
  const rows: Row<S>[] = scenario.peers.map((peer) => ({ peer, samples: [] }));
  const faults: Fault[] = [];
  for (let round = 0; round < runs; round++) {
    for (const row of rotate(rows, round)) {
      const peer = row.peer.name;
      progress(`  round ${round + 1} of ${runs}, ${peer}`);
      const fault = { peer, round: round + 1 };
      row.samples[round] = undefined;
      try {
        const sample = await scenario.measure(row.peer);
        faults.push(...sample.faults.map((text) => ({ ...fault, text, sample })));
        if (sample.faults.length === 0) row.samples[round] = sample;
      } catch (error) {
        faults.push({ ...fault, text: error instanceof Error ? error.message : String(error) });
      }
    }
  }
  return { scenario, rows, faults };
}

/** The metric by round, for ratios. */
export function metricByRound<S extends Sample>(row: Row<S>, metric: Column<S>): (number | undefined)[] {
  return row.samples.map((sample) => (sample === undefined ? undefined : metric.of(sample)));
}
