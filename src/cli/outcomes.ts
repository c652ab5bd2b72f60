/** What `headrace doctor` found, as text: a table of what is not as wanted, what each costs and repairs it, the rest in short. */
import type { Outcome } from "../primary/system-findings.ts";
import { table } from "./table.ts";

const LINE_WIDTH = 110;

/** Words with ", " between them, in lines that begin with `title`. */
function inShort(title: string, outcomes: readonly Outcome[]): string {
  if (outcomes.length === 0) return "";
  const lines = [title];
  for (const [at, { check, found }] of outcomes.entries()) {
    const word = `${found === "?" ? check : `${check} ${found}`}${at < outcomes.length - 1 ? "," : ""}`;
    const line = lines.at(-1) ?? "";
    if (line.length + 1 + word.length > LINE_WIDTH) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${line} ${word}`;
  }
  return `${lines.join("\n")}\n`;
}

/** Problems, then hints; those with one repair together, so that it stands there once. */
export function showOutcomes(outcomes: readonly Outcome[]): string {
  const findings = outcomes.flatMap((outcome) => ("repair" in outcome ? [outcome] : []));
  const rows = findings.map(({ check, found, wanted, severity }) => [check, found, wanted, severity]);
  const listed =
    rows.length === 0 ? "" : `${table([["check", "found", "wanted", "severity"], ...rows]).join("\n")}\n\n`;
  const said = findings.map(({ severity, message, repair }, at) => {
    const next = findings[at + 1];
    const last = next?.repair !== repair || next.severity !== severity;
    return `${severity}: ${message}\n${last ? `  ${repair}\n` : ""}`;
  });
  const rest = (severity: Outcome["severity"]): Outcome[] =>
    outcomes.filter((outcome) => outcome.severity === severity);
  return [
    listed,
    said.join("") || "nothing to repair\n",
    "\n",
    inShort("fine:", rest("ok")),
    inShort("unknown (not there, or not to be read):", rest("unknown")),
  ].join("");
}
