/**
 * Kinds of value: how one option's value is read, bounded, written back and described. The schema is built from
 * them and resolve.ts checks a service's own numbers with them. A refused value is a `Wrong`, never a throw.
 */
import { type Address, parseAddress } from "../base/address.ts";
import { CIDRS_MAX, parseCidr } from "./cidr.ts";
import { nearest } from "./nearest.ts";
import { shown } from "./shown.ts";
import { COUNT, type Unit } from "./units.ts";
import { V8_FLAGS_ALLOWED, v8FlagsProblem } from "./v8-flags.ts";

/** A value that is refused, and why. */
export class Wrong {
  /** Follows "option: " in a message. */
  readonly problem: string;
  readonly allowed: string | undefined;

  constructor(problem: string, allowed?: string) {
    this.problem = problem;
    this.allowed = allowed;
  }
}

export interface Kind<T> {
  /** What may be written, for people. */
  readonly allowed: string;
  /** JSON Schema keywords of what may be written. */
  readonly json: Readonly<Record<string, unknown>>;
  /** Reads what a file, a variable or a flag holds. */
  read(given: unknown): T | Wrong;
  /** `value` as the user would write it. */
  write(value: T): string;
}

/** A kind whose values can be checked without being read: a service declares them as they are. */
export interface CheckedKind<T> extends Kind<T> {
  check(value: unknown): Wrong | undefined;
}

/** A number in the unit of its option, or a word that stands for none ("off") or for a choice ("auto"). */
export interface NumericKind<T> extends Kind<T> {
  /** Checks a value that is already in ms, bytes or pieces. */
  check(value: unknown): Wrong | undefined;
}

/** Numbers from `min` (at least 1) to `max`, both in the unit's base (ms, bytes, pieces), or `word`. */
export function numeric(unit: Unit, min: number, max: number): NumericKind<number>;
export function numeric<W extends string>(unit: Unit, min: number, max: number, word: W): NumericKind<number | W>;
export function numeric(unit: Unit, min: number, max: number, word?: string): NumericKind<number | string> {
  const orWord = word === undefined ? "" : ` or ${word}`;
  const range = `${unit.write(min)} to ${unit.write(max)}${orWord}`;
  const examples = unit === COUNT ? range : unit.examples + orWord;
  const json = unit.json.type === "string" ? unit.json : { ...unit.json, minimum: min, maximum: max };

  function bounded(value: number, given: unknown): number | Wrong {
    if (value === 0 && word === "off")
      return new Wrong(`${shown(given)} is not allowed: write off to disable it`, range);
    return value < min || value > max ? new Wrong(`${shown(given)} is out of range`, range) : value;
  }

  return {
    allowed: unit === COUNT ? range : `${unit.noun}, ${range}`,
    json: word === undefined ? json : { anyOf: [json, { const: word }] },
    read(given) {
      if (word !== undefined && given === word) return word;
      const value = unit.read(given);
      if (value !== undefined) return bounded(value, given);
      const digits = COUNT.read(given); // Only a duration has no reading without a unit.
      if (digits !== undefined && digits > 0) {
        return new Wrong(`${shown(given)} has no unit (${digits}s? ${digits}ms?)`, examples);
      }
      if (digits === 0) return bounded(0, given);
      return new Wrong(`${shown(given)} is not a ${unit.noun}`, examples);
    },
    write: (value) => (typeof value === "number" ? unit.write(value) : value),
    check(value) {
      if (word !== undefined && value === word) return undefined;
      if (typeof value !== "number" || !Number.isSafeInteger(value)) {
        return new Wrong(`${shown(value)} is not a whole number`, range);
      }
      const result = bounded(value, value);
      return result instanceof Wrong ? result : undefined;
    },
  };
}

/** A part of a whole, above 0: `0.01` or `1%`; or one of `words`, of which the first turns it off. */
export function ratio<W extends string>(words: readonly [W, ...W[]]): Kind<number | W> {
  const allowed = `a part of 1 (0.01, 1%), or ${words.join(", ")}`;
  const [off] = words;
  return {
    allowed,
    json: { anyOf: [{ type: "number", exclusiveMinimum: 0, maximum: 1 }, { type: "string" }] },
    read(given) {
      const word = words.find((each) => each === given);
      if (word !== undefined) return word;
      const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(typeof given === "string" ? given : "");
      const value = match ? Number(match[1]) / (match[2] === "%" ? 100 : 1) : given;
      if (typeof value !== "number" || !Number.isFinite(value))
        return new Wrong(`${shown(given)} is not a part`, allowed);
      if (value === 0) return new Wrong(`${shown(given)} is not allowed: write ${off} to disable it`, allowed);
      return value < 0 || value > 1 ? new Wrong(`${shown(given)} is out of range`, allowed) : value;
    },
    write: String,
  };
}

const URL_ALLOWED = "an http or https URL without user and password (http://127.0.0.1:4318)";

export const HTTP_URL: Kind<string> = {
  allowed: URL_ALLOWED,
  json: { type: "string", format: "uri" },
  read(given) {
    const url = typeof given === "string" && URL.canParse(given) ? new URL(given) : undefined;
    if (!url || !/^https?:$/.test(url.protocol)) return new Wrong(`${shown(given)} is not a URL`, URL_ALLOWED);
    // Not shown: there is a secret in it.
    if (url.username !== "" || url.password !== "") return new Wrong("has a user or a password", URL_ALLOWED);
    return given as string;
  },
  write: String,
};

export const BOOLEAN: Kind<boolean> = {
  allowed: "true or false",
  json: { type: "boolean" },
  read(given) {
    if (given === true || given === "true") return true;
    if (given === false || given === "false") return false;
    return new Wrong(`${shown(given)} is not a switch`, "true or false");
  },
  write: String,
};

/** One of a few words. */
export function choice<W extends string>(words: readonly W[]): CheckedKind<W> {
  const allowed = words.join(", ");
  const read = (given: unknown): W | Wrong =>
    words.find((word) => word === given) ?? new Wrong(`${shown(given)} is not known`, allowed);
  return {
    allowed,
    json: { enum: words },
    read,
    write: String,
    check(value) {
      const result = read(value);
      return result instanceof Wrong ? result : undefined;
    },
  };
}

const CIDRS_ALLOWED = `up to ${CIDRS_MAX} addresses or CIDR blocks ("10.0.0.0/8", "2001:db8::/32")`;

/** A list of CIDR blocks; in a variable, with commas between them. */
export const CIDRS: Kind<readonly string[]> = {
  allowed: CIDRS_ALLOWED,
  json: { type: "array", items: { type: "string" }, maxItems: CIDRS_MAX },
  read(given) {
    const list = typeof given === "string" ? given.split(",").map((block) => block.trim()) : given;
    if (!Array.isArray(list)) return new Wrong(`${shown(given)} is not a list`, CIDRS_ALLOWED);
    if (list.length > CIDRS_MAX) return new Wrong(`a list of ${list.length} is too long`, CIDRS_ALLOWED);
    for (const block of list) {
      const parsed = typeof block === "string" ? parseCidr(block) : "not text";
      if (typeof parsed === "string") return new Wrong(`${shown(block)} is not a CIDR block: ${parsed}`, CIDRS_ALLOWED);
    }
    return list as string[];
  },
  write: (value) => value.join(","),
};

/** The same, where none at all would make no sense. */
export const SOME_CIDRS: Kind<readonly string[]> = {
  ...CIDRS,
  json: { ...CIDRS.json, minItems: 1 },
  read(given) {
    const list = CIDRS.read(given);
    return !(list instanceof Wrong) && list.length === 0 ? new Wrong("the list is empty", CIDRS_ALLOWED) : list;
  },
};

/** Flags of V8's; in a variable, with spaces between them. */
export const V8_FLAGS: Kind<readonly string[]> = {
  allowed: V8_FLAGS_ALLOWED,
  json: { type: "array", items: { type: "string" } },
  read(given) {
    const list = typeof given === "string" ? given.split(" ").filter((flag) => flag !== "") : given;
    if (!Array.isArray(list)) return new Wrong(`${shown(given)} is not a list`, V8_FLAGS_ALLOWED);
    const problem = v8FlagsProblem(list);
    return problem === undefined ? (list as string[]) : new Wrong(problem, V8_FLAGS_ALLOWED);
  },
  write: (value) => value.join(" "),
};

/** Text that `pattern` accepts; `allowed` says the pattern in words. */
export function text(noun: string, pattern: RegExp, allowed: string): Kind<string> {
  return {
    allowed,
    json: { type: "string", pattern: pattern.source },
    read(given) {
      if (typeof given === "string" && pattern.test(given)) return given;
      const quotes = typeof given === "number" ? " unless it is in quotes" : "";
      return new Wrong(`${shown(given)} is not a ${noun}${quotes}`, allowed);
    },
    write: String,
  };
}

export interface GivenAddress {
  readonly text: string;
  readonly address: Address;
}

export const ADDRESS: Kind<GivenAddress> = {
  allowed: "IP address and port: 127.0.0.1:9000, [::]:9000, localhost:9000, udp://127.0.0.1:9000; port 0: any free one",
  json: { type: "string" },
  read(given) {
    if (typeof given !== "string" || !/^[\x21-\x7e]{1,100}$/.test(given)) {
      return new Wrong(
        `${shown(given)} is not an address`,
        '"127.0.0.1:9000", "[::]:9000", "localhost:9000", "udp://127.0.0.1:9000"',
      );
    }
    const address = parseAddress(given);
    return typeof address === "string" ? new Wrong(address) : { text: given, address };
  },
  write: (value) => value.text,
};

/** A name out of `builtins`, or a module's path: it contains "/" or ends in .js, .mjs or .ts. */
export function service(builtins: readonly string[]): Kind<string> {
  const allowed = `${builtins.join(", ")}, or a module's path (./service.js)`;
  return {
    allowed,
    json: { type: "string" },
    read(given) {
      if (typeof given !== "string" || !/^\P{Cc}+$/u.test(given)) {
        return new Wrong(`${shown(given)} is not a service`, allowed);
      }
      if (builtins.includes(given) || given.includes("/") || /\.(js|mjs|ts)$/.test(given)) return given;
      const near = nearest(given, builtins);
      return new Wrong(`${shown(given)} is not a service${near ? `; did you mean ${near}?` : ""}`, allowed);
    },
    write: String,
  };
}
