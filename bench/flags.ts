/** The command line of a suite that has options of its own. A mistake is a UsageError. */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { UsageError } from "./options.ts";

type Syntax = NonNullable<ParseArgsConfig["options"]>;
type Flags<Options extends Syntax> = ReturnType<typeof parseArgs<{ options: Options }>>["values"];

/** Throws UsageError for a flag that is none, or lacks its value. */
export function parseFlags<const Options extends Syntax>(args: readonly string[], options: Options): Flags<Options> {
  try {
    return parseArgs({ args: [...args], options }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** Throws UsageError. */
export function whole(name: string, text: string | undefined, otherwise: number, least = 1): number {
  const value = text === undefined ? otherwise : Number(text);
  if (Number.isInteger(value) && value >= least) return value;
  throw new UsageError(`--${name}: ${text} is not a whole number of at least ${least}`);
}
