/**
 * YAML (and so JSON) text as plain data that knows its lines. The conversion is written here, and not left to the
 * parser, so that one bounded pass finds duplicate names with their place, expands aliases within a budget, and
 * makes objects without a prototype: a file that names `__proto__` has only an unknown option.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, type YAMLMap } from "yaml";
import { rowAt } from "./rows.ts";
import { formatPath, type Path } from "./shown.ts";

/** A full configuration of 64 listeners has about 2,000 values. */
const MAX_VALUES = 10_000;
const MAX_DEPTH = 16;

interface Fault {
  readonly path: Path;
  /** 1-based. */
  readonly line: number;
  readonly problem: string;
}

export interface ParsedDocument {
  /** `{}` when the text holds nothing. Meaningless when there are faults. */
  readonly data: unknown;
  /** Why the text is not YAML, or holds what a configuration cannot. */
  readonly faults: readonly Fault[];
  /** Line of the option at `path`, or of the nearest group around it. */
  lineOf(path: Path): number;
}

const PROBLEMS: Readonly<Record<string, string>> = {
  MULTIPLE_DOCS: "a second document begins; one file holds one configuration",
  RESOURCE_EXHAUSTION: "nested too deeply",
};

class Conversion {
  readonly faults: Fault[] = [];
  readonly lines: Map<string, number> = new Map();
  readonly #counter: LineCounter;
  readonly #anchors: Map<string, Node> = new Map();
  #values = 0;

  constructor(counter: LineCounter) {
    this.#counter = counter;
  }

  line(node: unknown): number {
    const offset = (node as Node | null)?.range?.[0];
    return offset === undefined ? 1 : this.#counter.linePos(offset).line;
  }

  #fault(path: Path, node: unknown, problem: string): undefined {
    this.faults.push({ path, line: this.line(node), problem });
  }

  convert(node: unknown, path: Path): unknown {
    if (++this.#values > MAX_VALUES) {
      return this.#values === MAX_VALUES + 1
        ? this.#fault([], node, `holds more than ${MAX_VALUES} values`)
        : undefined;
    }
    if (path.length > MAX_DEPTH) return this.#fault(path.slice(0, 3), node, PROBLEMS.RESOURCE_EXHAUSTION ?? "");
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source);
      return target
        ? this.convert(target, path)
        : this.#fault(path, node, `no &${node.source} stands before this alias`);
    }
    // An anchor is known to its own content, as YAML has it: the depth ends such a cycle.
    if ((isMap(node) || isSeq(node) || isScalar(node)) && node.anchor) this.#anchors.set(node.anchor, node);
    if (isMap(node)) return this.#group(node, path);
    if (isSeq(node)) return node.items.map((item, index) => this.#item(item, [...path, index]));
    return isScalar(node) ? node.value : null;
  }

  #item(item: unknown, path: Path): unknown {
    this.lines.set(formatPath(path), this.line(item));
    return this.convert(item, path);
  }

  #group(map: YAMLMap, path: Path): Record<string, unknown> {
    const group: Record<string, unknown> = Object.create(null);
    for (const { key, value } of map.items) {
      const place = [...path, isScalar(key) ? String(key.value) : ""];
      const problem = this.#problemOf(key, place, group);
      if (problem === undefined) this.#option(key, value, place, group);
      else this.#fault(isScalar(key) ? place : path, key ?? value, problem);
    }
    return group;
  }

  #problemOf(key: unknown, place: Path, group: Record<string, unknown>): string | undefined {
    if (!isScalar(key)) return "an option's name must be plain text";
    const name = String(key.value);
    if (name === "<<") return "merge keys are not supported; an alias for a whole group is: limits: *shared";
    return Object.hasOwn(group, name)
      ? `given twice, first on line ${this.lines.get(formatPath(place)) ?? 1}`
      : undefined;
  }

  #option(key: unknown, value: unknown, place: Path, group: Record<string, unknown>): void {
    this.lines.set(formatPath(place), this.line(key));
    const data = this.convert(value, place);
    // A group whose options are all commented out is empty, not wrong.
    const empty = (data === null || data === undefined) && rowAt(place)?.kind === "group";
    group[String(place.at(-1))] = empty ? Object.create(null) : data;
  }
}

/** YAML takes `[::]:9000` for a list, and its message then says nothing of addresses. */
function hint(text: string, counter: LineCounter, line: number): string {
  const content = text.slice(counter.lineStarts[line - 1], counter.lineStarts[line]);
  return /\[[0-9a-f:.]*\]:\d/i.test(content) ? "; put an IPv6 address in quotes" : "";
}

/** Parses `text`. Never throws: what is wrong with it is in `faults`. */
export function readDocument(text: string): ParsedDocument {
  const counter = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: counter,
    prettyErrors: false,
    // Checked above in linear time and with the option's path; the parser compares each with each.
    uniqueKeys: false,
    // Fixed, so that `%YAML 1.1` cannot turn `off` into false.
    schema: "core",
    // `!!binary` and the like are refused as tags that nobody knows.
    resolveKnownTags: false,
  });
  const conversion = new Conversion(counter);
  for (const { code, message, pos } of [...document.errors, ...document.warnings]) {
    const line = counter.linePos(pos[0]).line;
    const problem =
      PROBLEMS[code] ?? `not valid YAML: ${message.replaceAll(/\p{Cc}+/gu, " ")}${hint(text, counter, line)}`;
    conversion.faults.push({ path: [], line, problem });
  }
  const readable = conversion.faults.length === 0;
  const data = readable ? conversion.convert(document.contents, []) : undefined;
  const { faults, lines } = conversion;
  return {
    data: data ?? {},
    faults,
    lineOf(path) {
      for (let length = path.length; length > 0; length--) {
        const line = lines.get(formatPath(path.slice(0, length)));
        if (line !== undefined) return line;
      }
      return conversion.line(document.contents);
    },
  };
}
