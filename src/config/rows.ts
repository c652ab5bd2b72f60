/**
 * The schema as a flat list: one row per group and per option, in the schema's order. Names for suggestions, the
 * environment's variables and the documented table all come from it.
 */
import { z } from "zod";
import type { OptionMeta } from "./option.ts";
import { configSchema } from "./schema.ts";

export interface Row {
  /** Keys from the top; a list's items are "[]": ["listeners", "[]", "name"]. */
  readonly path: readonly string[];
  /** The options of a group, and the items of a list, follow as rows of their own. */
  readonly kind: "group" | "list" | "option";
  readonly description: string;
  /** What may be written; "" for a group. */
  readonly allowed: string;
  /** As the user would write it. */
  readonly default: unknown;
  /** What was given is never shown. */
  readonly secret: boolean;
}

function row(schema: z.core.$ZodType, path: readonly string[], kind: Row["kind"]): Row {
  const meta: Partial<OptionMeta> = z.globalRegistry.get(schema) ?? {};
  const { description = "", allowed = "", writeOnly = false } = meta;
  return { path, kind, description, allowed, default: meta.default, secret: writeOnly };
}

function rowsOf(schema: z.core.$ZodType, path: readonly string[]): Row[] {
  if (schema instanceof z.ZodExactOptional) return rowsOf(schema.unwrap(), path);
  if (schema instanceof z.ZodArray) return [row(schema, path, "list"), ...rowsOf(schema.element, [...path, "[]"])];
  if (!(schema instanceof z.ZodObject)) return [row(schema, path, "option")];
  const inner = Object.entries(schema.shape).flatMap(([name, option]) => rowsOf(option, [...path, name]));
  return [row(schema, path, "group"), ...inner];
}

/** Every group and option; the first row is the configuration itself, with an empty path. */
export const ROWS: readonly Row[] = rowsOf(configSchema, []);

const byPath = new Map(ROWS.map((row) => [row.path.join(" "), row]));

/** The row for a path in given data, where list positions are numbers. */
export function rowAt(path: readonly PropertyKey[]): Row | undefined {
  return byPath.get(path.map((key) => (typeof key === "number" ? "[]" : String(key))).join(" "));
}

/** Names of the options directly in the group at `path`. */
export function namesIn(path: readonly PropertyKey[]): string[] {
  const group = rowAt(path)?.path;
  if (!group) return [];
  const inGroup = ROWS.filter(
    (row) => row.path.length === group.length + 1 && group.every((key, i) => row.path[i] === key),
  );
  return inGroup.flatMap((row) => row.path.at(-1) ?? []);
}
