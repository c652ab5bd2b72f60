/** Reads a source with the schema, and says in the user's words what does not fit. */
import type { z } from "zod";
import type { Finding } from "./finding.ts";
import { nearest } from "./nearest.ts";
import { namesIn, rowAt } from "./rows.ts";
import { type ConfigInput, readInput } from "./schema.ts";
import { type Path, shown } from "./shown.ts";
import type { Source } from "./source.ts";

type Issue = z.core.$ZodIssue;

function unknownOption(source: Source, path: Path, name: string): Finding {
  const known = namesIn(path);
  const place = source.place([...path, name]);
  if (path[0] === "listeners" && rowAt([...path.slice(2), name])) {
    return { place, problem: "is not a listener's option: it stands at the top, for all of them" };
  }
  const near = nearest(name, known);
  return near
    ? { place, problem: `unknown option; did you mean ${near}?` }
    : { place, problem: "unknown option", allowed: known.join(", ") };
}

/** Problem and allowed values of an issue that is about one value. */
function explain(issue: Issue, path: Path): Pick<Finding, "problem" | "allowed"> {
  const allowed = rowAt(path)?.allowed || namesIn(path).join(", ");
  const given = shown(issue.input);
  if (issue.input === undefined) return { problem: "is missing", allowed };
  if (issue.code === "custom") return { problem: issue.message, allowed: issue.params?.allowed };
  if (issue.code === "invalid_type" && issue.expected === "array")
    return { problem: `${given} is not a list`, allowed };
  if (issue.code === "invalid_type") return { problem: `${given} is not a group of options`, allowed };
  if (issue.code === "too_small") return { problem: "the list is empty", allowed };
  if (issue.code === "too_big") return { problem: "the list is too long", allowed };
  return { problem: issue.message, allowed };
}

function findingsOf(issue: Issue, source: Source): Finding[] {
  const path = issue.path as (string | number)[];
  if (issue.code === "unrecognized_keys") return issue.keys.map((name) => unknownOption(source, path, name));
  const given = rowAt(path)?.secret ? {} : { given: shown(issue.input) };
  return [{ place: source.place(path), ...given, ...explain(issue, path) }];
}

/** What `source` holds. What is wrong with it goes to `findings`, in the order of its lines. */
export function readSource(source: Source, findings: Finding[]): ConfigInput {
  findings.push(...source.findings);
  if (source.data === undefined) return {};
  const result = readInput(source.data);
  if (!Array.isArray(result)) return result;
  const found = result.flatMap((issue) => findingsOf(issue, source));
  findings.push(...found.sort((a, b) => (a.place.line ?? 0) - (b.place.line ?? 0)));
  return {};
}
