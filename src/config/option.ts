/** How one option becomes a zod schema that knows its description, its default and what is allowed. */
import { z } from "zod";
import { type Kind, Wrong } from "./kinds.ts";

/** What an option's schema says about itself, beside JSON Schema keywords. */
export interface OptionMeta {
  readonly description?: string | undefined;
  /** As the user would write it; absent when there is none. */
  readonly default?: unknown;
  readonly allowed?: string;
  /** A secret. */
  readonly writeOnly?: boolean;
}

export type Option<T> = z.ZodExactOptional<z.ZodType<T>>;
export type Options<T> = { [Name in keyof T]: Option<T[Name]> };

function reading<T>(kind: Kind<T>, meta: Omit<OptionMeta, "allowed">): z.ZodType<T> {
  const schema = z.unknown().transform((given, context): T => {
    const result = kind.read(given);
    if (!(result instanceof Wrong)) return result;
    const { problem, allowed } = result;
    context.issues.push({ code: "custom", message: problem, params: { allowed }, input: given });
    return z.NEVER;
  });
  return schema.meta({ ...kind.json, ...meta, allowed: kind.allowed });
}

/** An option that must be given. */
export function required<T>(kind: Kind<T>, description: string): z.ZodType<T> {
  return reading(kind, { description });
}

/** An option whose absence its description explains. */
export function optional<T>(kind: Kind<T>, description: string): Option<T> {
  return reading(kind, { description }).exactOptional();
}

/** An option with a default, which is documented here and applied by load.ts. */
export function option<T>(kind: Kind<T>, fallback: T, description: string): Option<T> {
  const written = kind.write(fallback);
  return reading(kind, { description, default: written === String(fallback) ? fallback : written }).exactOptional();
}

/** One option for each property of `T`. */
export function options<T extends object>(
  kinds: { readonly [Name in keyof T]: Kind<T[Name]> },
  defaults: Readonly<T>,
  descriptions: { readonly [Name in keyof T]: string },
): Options<T> {
  const names = Object.keys(descriptions) as (keyof T)[];
  const entries = names.map((name) => [name, option(kinds[name], defaults[name], descriptions[name])]);
  return Object.fromEntries(entries) as Options<T>;
}
