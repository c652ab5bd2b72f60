/**
 * The figures to reach, one row each, and the verdict on them. They are promises about headrace on one core against a
 * peer on the same core in the same run; the README repeats them, so a change here is a change there.
 */
import type { PeerId } from "./peers.ts";

export type SuiteName = "echo" | "idle" | "churn" | "flood" | "tls" | "udp";

interface Figure {
  suite: SuiteName;
  /** Ratio to this peer, or absent: the value of headrace itself. */
  against?: PeerId;
  /** Holds at this number of connections only. */
  connections?: number;
  relation: "at most" | "at least";
  target: number;
  /** Missed the target but within the bound is a warning, not a miss. */
  bound?: number;
}

type Verdict = "ok" | "bound" | "miss";

const FIGURES: readonly Figure[] = [
  // Server CPU per message, closed loop, 64 bytes.
  ...[100, 1_000, 10_000].map(
    (connections): Figure => ({
      suite: "echo",
      against: "c",
      connections,
      relation: "at most",
      target: 1.15,
      bound: 1.25,
    }),
  ),
  { suite: "echo", against: "go", connections: 100, relation: "at most", target: 1.0 },
  { suite: "echo", against: "go", connections: 1_000, relation: "at most", target: 0.75 },
  { suite: "echo", against: "go", connections: 10_000, relation: "at most", target: 0.85 },
  { suite: "echo", against: "node-net", connections: 100, relation: "at most", target: 0.62 },
  { suite: "echo", against: "node-net", connections: 1_000, relation: "at most", target: 0.52 },
  { suite: "echo", against: "node-net", connections: 10_000, relation: "at most", target: 0.62 },
  // The same over TLS 1.3.
  { suite: "tls", against: "go", relation: "at most", target: 1.0, bound: 1.05 },
  { suite: "tls", against: "node-net", relation: "at most", target: 0.55 },
  // Lines echoed per server CPU second.
  { suite: "flood", against: "go", connections: 10_000, relation: "at least", target: 4 },
  // Connections per server CPU second.
  { suite: "churn", against: "c", relation: "at least", target: 0.85 },
  // Server CPU per datagram, 64 bytes.
  { suite: "udp", against: "c-udp", relation: "at most", target: 1.15 },
  { suite: "udp", against: "node-dgram", relation: "at most", target: 0.5 },
  // KiB per idle connection.
  { suite: "idle", relation: "at most", target: 1 },
];

/** The figure for this comparison, if one is promised. */
export function findFigure(suite: SuiteName, against: PeerId | undefined, connections: number): Figure | undefined {
  return FIGURES.find(
    (figure) =>
      figure.suite === suite &&
      figure.against === against &&
      (figure.connections === undefined || figure.connections === connections),
  );
}

export function judge(figure: Figure, value: number): Verdict {
  const within = (limit: number): boolean => (figure.relation === "at most" ? value <= limit : value >= limit);
  if (within(figure.target)) return "ok";
  return figure.bound !== undefined && within(figure.bound) ? "bound" : "miss";
}

/** ≤ 1.15 (bound 1.25) */
export function describeFigure(figure: Figure): string {
  const sign = figure.relation === "at most" ? "≤" : "≥";
  const bound = figure.bound === undefined ? "" : ` (bound ${figure.bound.toFixed(2)})`;
  return `${sign} ${figure.target.toFixed(2)}${bound}`;
}
