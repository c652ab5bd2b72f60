/** The configuration's documentation, made from the schema: `headrace check --reference` and `--json-schema`. */
import { z } from "zod";
import { EFFECTS, type Effect } from "./effects.ts";
import { variableOf } from "./environment.ts";
import { ROWS, type Row } from "./rows.ts";
import { configSchema } from "./schema.ts";

const OWN_GROUPS: readonly unknown[] = ["proxyProtocol", "tls"];

/** A listener's limits, timeouts and socket are those of the top: one line each. What it alone has is written out. */
function documented({ path, kind }: Row): boolean {
  if (OWN_GROUPS.includes(path[2])) return kind === "option";
  if (path[0] === "listeners") return path.length === 1 || path.length === 3;
  return kind === "option";
}

const ON_RELOAD: Readonly<Record<Effect, string>> = {
  live: "at once",
  workers: "by new workers",
  scale: "by more or fewer workers",
  restart: "not: needs a restart",
};

function code(text: string): string {
  return text === "" ? "" : `\`${text}\``;
}

function cells({ path, kind, description, allowed, default: fallback }: Row): string[] {
  const name = path.join(".").replaceAll(".[]", "[]");
  const effect = EFFECTS[name];
  const variable = kind === "option" && path[0] !== "listeners" ? variableOf(path) : "";
  const values = kind !== "group" ? allowed : name.endsWith(".tls") ? "" : "as at the top";
  return [
    code(name),
    values,
    code(String(fallback ?? "")),
    description,
    effect ? ON_RELOAD[effect] : "",
    code(variable),
  ];
}

/** A Markdown table of every option: values, default, what it does, how a reload applies it, its variable. */
export function configReference(): string {
  const header = ["Option", "Values", "Default", "What it does", "On reload", "Variable"];
  const rows = [header, header.map(() => "---"), ...ROWS.filter(documented).map(cells)];
  return rows.map((row) => `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`).join("");
}

/** JSON Schema (2020-12) of the file, for editors. */
export function jsonSchema(): object {
  return z.toJSONSchema(configSchema, {
    io: "input",
    override({ zodSchema, jsonSchema: result }) {
      // "allowed" is for messages, not a keyword. A default is dropped by zod where a value is transformed.
      const { allowed: _, ...keywords } = result;
      const fallback = z.globalRegistry.get(zodSchema)?.default;
      for (const key of Object.keys(result)) delete result[key];
      Object.assign(result, keywords, fallback === undefined ? {} : { default: fallback });
    },
  });
}
