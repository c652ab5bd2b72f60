/**
 * Durations, sizes and counts as people write them: `10s`, `64KiB`, `200`. Pure functions: text that does not
 * fit gives `undefined`. Milliseconds and bytes everywhere else.
 */

export interface Unit {
  /** "duration" in `"10 parsecs" is not a duration`. */
  readonly noun: string;
  /** How values look, for an error message. */
  readonly examples: string;
  /** JSON Schema of what may be written. */
  readonly json: { readonly type: string | readonly string[]; readonly pattern?: string };
  /** The value in ms, bytes or pieces. Variables and flags are text, so a count may be text too. */
  read(given: unknown): number | undefined;
  /** The shortest exact text: 90000 ms is "90s". */
  write(value: number): string;
}

type Factor = readonly [suffix: string, factor: number];

const TIME: readonly Factor[] = [
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000],
  ["ms", 1],
];

const BYTES: readonly Factor[] = [
  ["GiB", 1024 ** 3],
  ["MiB", 1024 ** 2],
  ["KiB", 1024],
  ["", 1],
];

function readText(given: unknown, factors: readonly Factor[]): number | undefined {
  if (typeof given !== "string") return undefined;
  const match = /^(\d{1,15})([A-Za-z]*)$/.exec(given);
  const factor = factors.find(([suffix]) => suffix === match?.[2]);
  return match && factor ? Number(match[1]) * factor[1] : undefined;
}

function writeText(value: number, factors: readonly Factor[]): string {
  const factor = value === 0 ? undefined : factors.find(([, size]) => value % size === 0);
  const [suffix, size] = factor ?? ["", 1];
  return `${value / size}${suffix}`;
}

function readCount(given: unknown): number | undefined {
  const value = typeof given === "string" && /^\d{1,15}$/.test(given) ? Number(given) : given;
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** Milliseconds. A bare number is refused: 10 could mean seconds or milliseconds. */
export const DURATION: Unit = {
  noun: "duration",
  examples: "500ms, 10s, 2m, 1h",
  json: { type: "string", pattern: "^[0-9]+(ms|s|m|h)$" },
  read: (given) => readText(given, TIME),
  write: (value) => writeText(value, TIME),
};

/** Bytes; a bare number is bytes. KiB, MiB and GiB are powers of 1024. */
export const SIZE: Unit = {
  noun: "size",
  examples: "4096 (bytes), 64KiB, 1MiB, 1GiB",
  json: { type: ["integer", "string"], pattern: "^[0-9]+(KiB|MiB|GiB)?$" },
  read: (given) => readCount(given) ?? readText(given, BYTES),
  write: (value) => writeText(value, BYTES),
};

/** Per cent; the sign may be left out. */
export const PERCENT: Unit = {
  noun: "percentage",
  examples: "10%, 50%",
  json: { type: ["integer", "string"], pattern: "^[0-9]+%?$" },
  read: (given) => readCount(typeof given === "string" ? given.replace(/%$/, "") : given),
  write: (value) => `${value}%`,
};

export const COUNT: Unit = {
  noun: "whole number",
  examples: "whole numbers",
  json: { type: "integer" },
  read: readCount,
  write: String,
};
