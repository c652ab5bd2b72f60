/**
 * V8's flags: which there are, and whether a set of them is one that V8 takes. Both are asked of the very node that
 * workers will run, as processes that end at once: V8 itself says nothing of a flag that it does not know
 * (`v8.setFlagsFromString`), and what one does to this process cannot be undone. Asked only when somebody gives flags,
 * and once for each set of them.
 */
import { spawnSync } from "node:child_process";
import { nearest } from "./nearest.ts";
import { shown } from "./shown.ts";

const MOST_FLAGS = 32;
/** Node has started and ended many times over by then. */
const ANSWER_MS = 10_000;
const FLAG = /^--[a-z][\w-]*(=[\w.,:/+*-]{0,100})?$/i;
/** In V8's list, and yet Node's own: it prints something and ends. */
const NODES: readonly string[] = ["help"];
/** Those that have an option here. */
const OURS: Readonly<Record<string, string>> = {
  "max-semi-space-size": "v8.semiSpace",
  "max-old-space-size": "v8.oldSpace",
};

export const V8_FLAGS_ALLOWED: string = `up to ${MOST_FLAGS} flags of node --v8-options, each as "--flag" or "--flag=value"`;

let names: ReadonlySet<string> | undefined;
const taken = new Map<string, string | undefined>();

function runNode(args: readonly string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    timeout: ANSWER_MS,
    env: { ...process.env, NODE_OPTIONS: undefined },
  });
  return { code: status, stdout: stdout ?? "", stderr: stderr ?? "" };
}

function knownNames(): ReadonlySet<string> {
  names ??= new Set(
    [...runNode(["--v8-options"]).stdout.matchAll(/^ {2}--([\w-]+) \(/gm)].map(([, name]) => name ?? ""),
  );
  return names;
}

/** `--no-lazy`, `--nolazy` and `--max_lazy` are names of V8's in disguise. */
function isKnown(flag: string): boolean {
  const name = nameOf(flag);
  const positive = name.replace(/^no-?/, "");
  return !NODES.includes(name) && !NODES.includes(positive) && (knownNames().has(name) || knownNames().has(positive));
}

const nameOf = (flag: string): string => (flag.slice(2).split("=")[0] ?? "").replaceAll("_", "-");

function problemOf(flag: unknown): string | undefined {
  if (typeof flag !== "string" || !FLAG.test(flag)) return `${shown(flag)} is not a flag`;
  const instead = OURS[nameOf(flag)];
  if (instead !== undefined) return `${shown(flag)} has an option of its own: ${instead}`;
  if (isKnown(flag)) return undefined;
  const near = nearest(nameOf(flag), [...knownNames()]);
  return `${shown(flag)} is not a flag of V8 ${process.versions.v8}${near === undefined ? "" : `; did you mean --${near}?`}`;
}

/** What node says when it starts with them; undefined: it does start. */
function refusalOf(flags: readonly string[]): string | undefined {
  const key = flags.join(" ");
  if (!taken.has(key)) {
    const { code, stderr } = runNode([...flags, "--eval", "0"]);
    const [said = ""] = stderr.split("\n");
    const why = said.replace(/^Error: /, "") || (code === null ? "it does not end" : `it ends with ${code}`);
    taken.set(key, code === 0 ? undefined : `node does not run with ${shown(key)}: ${why}`);
  }
  return taken.get(key);
}

/** What is wrong with a list of flags, if anything is. */
export function v8FlagsProblem(flags: readonly unknown[]): string | undefined {
  if (flags.length > MOST_FLAGS) return `a list of ${flags.length} is too long`;
  for (const flag of flags) {
    const problem = problemOf(flag);
    if (problem !== undefined) return problem;
  }
  return flags.length === 0 ? undefined : refusalOf(flags as readonly string[]);
}
