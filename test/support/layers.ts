/** Reads the imports of src/ and says which of them break the one-way rule. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";

/** Higher imports lower. */
const RANKS: Readonly<Record<string, number>> = {
  base: 0,
  codec: 1,
  config: 1,
  control: 1,
  os: 1,
  engine: 2,
  service: 2,
  tasks: 2,
  connection: 3,
  admin: 3,
  client: 3,
  load: 3,
  primary: 4,
  worker: 4,
  cli: 5,
};

/** src/index.ts: sees everything, is seen by nothing. */
const TOP = 6;

/** Folders of one rank that one of them may import from, each with its reason. */
const SIBLINGS: Readonly<Record<string, readonly string[]>> = {
  // A service names its thread pools, and a built-in has one.
  service: ["tasks"],
};

interface Import {
  readonly from: string;
  readonly to: string;
}

function sourceFiles(src: string): string[] {
  return readdirSync(src, { recursive: true, encoding: "utf8" })
    .filter((name) => /\.[cm]?tsx?$/.test(name))
    .sort();
}

/** Every specifier of a static, dynamic, type-only or side-effect import, and of a re-export. */
export function specifiersOf(code: string): string[] {
  const bare = code.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const pattern = /(?:\bfrom|\bimport|\brequire|\bimport\.meta\.resolve)\s*\(?\s*(["'`])([^"'`\n]+)\1/g;
  return [...bare.matchAll(pattern)].map(([, , specifier]) => specifier as string);
}

function importsOf(src: string, file: string): Import[] {
  const inside = (specifier: string): string | undefined => {
    if (specifier.startsWith("#src/")) return specifier.slice("#src/".length);
    if (!specifier.startsWith(".")) return undefined;
    return relative(src, resolve(dirname(join(src, file)), specifier));
  };
  return specifiersOf(readFileSync(join(src, file), "utf8")).flatMap((specifier) => {
    const to = inside(specifier);
    return to === undefined ? [] : [{ from: file, to }];
  });
}

function folderOf(file: string): string {
  return file.includes(sep) ? (file.split(sep)[0] as string) : "";
}

function rankOf(folder: string): number | undefined {
  return folder === "" ? TOP : RANKS[folder];
}

function problemOf({ from, to }: Import): string | undefined {
  const [source, target] = [folderOf(from), folderOf(to)];
  if (to.startsWith("..")) return "leaves src/";
  if (target === "") return "nothing imports what stands at the top of src/";
  if (source === target) return undefined;
  const [high, low] = [rankOf(source), rankOf(target)];
  if (high === undefined || low === undefined) return "a folder without a rank";
  if (low > high) return `upward: rank ${high} imports rank ${low}`;
  if (low === high && !SIBLINGS[source]?.includes(target)) return `sideways: both are rank ${high}`;
  return undefined;
}

/** "base/log.ts → worker/server.ts: upward: …" for each import that breaks the rule. */
export function violations(src: string): string[] {
  return sourceFiles(src)
    .flatMap((file) => importsOf(src, file))
    .flatMap((each) => {
      const problem = problemOf(each);
      return problem ? [`${each.from} → ${each.to}: ${problem}`] : [];
    });
}

/** Imports in all, so that a checker that finds none is noticed. */
export function importCount(src: string): number {
  return sourceFiles(src).reduce((sum, file) => sum + importsOf(src, file).length, 0);
}
