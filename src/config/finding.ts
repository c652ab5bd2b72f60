/**
 * What is wrong with a configuration. Every part of the reading adds its findings to a list, so that the user
 * sees all of them at once; `refuse` then makes one error of them.
 */
import { type ErrorCode, HeadraceError } from "../base/errors.ts";

/** Where a value was given. */
export interface Place {
  /** Begins the message: `headrace.yaml:7: limits.frame`, `HEADRACE_WORKERS`, `--listen`. */
  readonly label: string;
  readonly code: ErrorCode;
  readonly option?: string;
  readonly file?: string;
  /** 1-based. */
  readonly line?: number;
}

export interface Finding {
  readonly place: Place;
  /** Follows the label: `"10 parsecs" is not a duration`. */
  readonly problem: string;
  readonly given?: string | undefined;
  readonly allowed?: string | undefined;
}

/** More would scroll the first ones, which matter most, off the screen. */
const MOST_LINES = 20;

/** `headrace.yaml:7: timeouts.idle: "10 parsecs" is not a duration; allowed: 500ms, 10s, 2m, 1h or off`. */
function formatFinding(finding: Finding): string {
  const allowed = finding.allowed ? `; allowed: ${finding.allowed}` : "";
  return `${finding.place.label}: ${finding.problem}${allowed}`;
}

/** Throws an error of the first finding, with the others on the lines that follow, if there is any. */
export function refuse(findings: readonly Finding[]): void {
  const [first] = findings;
  if (!first) return;
  const lines = [...new Set(findings.map(formatFinding))];
  const rest = lines.length - MOST_LINES;
  if (rest > 0) lines.splice(MOST_LINES, rest, `and ${rest} more`);
  const { label: _, code, ...where } = first.place;
  const given = first.given === undefined ? {} : { given: first.given };
  const allowed = first.allowed === undefined ? {} : { allowed: first.allowed };
  throw new HeadraceError(code, lines.join("\n"), { ...where, ...given, ...allowed });
}
