/** Prometheus' text format, read strictly: every line has to be what the format knows, and no series be there twice. */
import assert from "node:assert/strict";

interface ExposedFamily {
  readonly type: string;
  readonly help: string;
  /** By name with labels, as written. */
  readonly samples: Map<string, number>;
}

export interface Exposition {
  readonly families: ReadonlyMap<string, ExposedFamily>;
  /** Sum of the series of a name that have these labels; undefined when there is none. */
  sum(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

const HEAD = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/;
const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*",?)*\})? (\S+)$/;

function numberOf(text: string): number {
  const special: Readonly<Record<string, number>> = {
    "+Inf": Infinity,
    "-Inf": -Infinity,
    NaN: Number.NaN,
    Nan: Number.NaN,
  };
  const value = special[text] ?? Number(text);
  assert.ok(text in special || Number.isFinite(value), `a value: ${text}`);
  return value;
}

/** Throws what is wrong with `text`. */
export function readExposition(text: string): Exposition {
  const families = new Map<string, { type: string; help: string; samples: Map<string, number> }>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const head = HEAD.exec(line);
    if (head) {
      const [, kind, name = "", rest = ""] = head;
      if (kind === "HELP") {
        assert.ok(!families.has(name), `twice: ${name}`);
        families.set(name, { type: "", help: rest, samples: new Map() });
      } else (families.get(name) ?? assert.fail(line)).type = rest;
      continue;
    }
    const [, name = "", labels = "", value = ""] = SAMPLE.exec(line) ?? assert.fail(`no line of the format: ${line}`);
    const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, "")) ?? assert.fail(line);
    const series = `${name}${labels}`;
    assert.ok(!family.samples.has(series), `twice: ${series}`);
    family.samples.set(series, numberOf(value));
  }
  const sum = (name: string, labels: Readonly<Record<string, string>> = {}): number | undefined => {
    const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
    const found: number[] = [];
    for (const { samples } of families.values()) {
      for (const [series, value] of samples) {
        const [base = ""] = series.split("{");
        if (base === name && wanted.every((label) => series.includes(label))) found.push(value);
      }
    }
    return found.length === 0 ? undefined : found.reduce((total, value) => total + value, 0);
  };
  return { families, sum };
}
