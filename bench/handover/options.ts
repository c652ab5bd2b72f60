/** The command line of the three suites about handover. A mistake is a UsageError, which main.ts answers with exit 2. */
import { parseFlags, whole } from "../flags.ts";
import { UsageError } from "../options.ts";
import { SUBJECT_IDS, type SubjectId } from "./subject.ts";

const HANDOVER_SUITES = ["handover", "migrate", "respawn"] as const;
export type HandoverSuite = (typeof HANDOVER_SUITES)[number];

export interface HandoverOptions {
  readonly suite: HandoverSuite;
  /** Held all the time. */
  readonly connections: number;
  /** Between two lines of each of them, ms. */
  readonly intervalMs: number;
  readonly churnPerSecond: number;
  /** Reloads, upgrades, moves or kills. */
  readonly rounds: number;
  /** For the same load with nothing happening. */
  readonly aloneSeconds: number;
  readonly subjects: readonly SubjectId[];
  /** Shorter than as shipped: shows that it works, proves nothing. */
  readonly quick: boolean;
  readonly jsonFile?: string;
}

export const HANDOVER_USAGE = `npm run bench -- handover|migrate|respawn [options]

  handover   held connections and churn over reloads and upgrades, beside the same load left alone; nginx, pm2
  migrate    all connections of a worker move to its replacement: time, loop pauses, memory
  respawn    from SIGKILL of a worker to its slot accepting again

  --connections N        held (handover 10000, migrate 15000, respawn 200)
  --interval MS          between two lines of each (handover 2000, migrate 5000, respawn 100)
  --churn N              short connections per second beside them (handover 200, migrate 0, respawn 200)
  --rounds N             reloads, upgrades, moves or kills (20; migrate 5)
  --alone SECONDS        handover: the load left alone first (20)
  --subjects A,B         handover: of ${SUBJECT_IDS.join(", ")} (all)
  --quick                handover 500, migrate 1500 connections; 3 rounds, 3 s alone, a proving time of 200 ms
  --json FILE            raw figures`;

const SYNTAX = {
  connections: { type: "string" },
  interval: { type: "string" },
  churn: { type: "string" },
  rounds: { type: "string" },
  alone: { type: "string" },
  subjects: { type: "string" },
  quick: { type: "boolean" },
  json: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

interface Defaults {
  readonly connections: readonly [full: number, quick: number];
  readonly intervalMs: number;
  readonly churnPerSecond: number;
  readonly rounds: number;
}

const DEFAULTS: Readonly<Record<HandoverSuite, Defaults>> = {
  handover: { connections: [10_000, 500], intervalMs: 2_000, churnPerSecond: 200, rounds: 20 },
  migrate: { connections: [15_000, 1_500], intervalMs: 5_000, churnPerSecond: 0, rounds: 5 },
  respawn: { connections: [200, 200], intervalMs: 100, churnPerSecond: 200, rounds: 20 },
};

function subjectsOf(text: string | undefined): readonly SubjectId[] {
  if (text === undefined) return SUBJECT_IDS;
  return text.split(",").map((word) => {
    const id = SUBJECT_IDS.find((candidate) => candidate === word);
    if (id === undefined) throw new UsageError(`--subjects: "${word}" is none of ${SUBJECT_IDS.join(", ")}`);
    return id;
  });
}

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseHandover(suite: HandoverSuite, args: readonly string[]): HandoverOptions | undefined {
  const values = parseFlags(args, SYNTAX);
  if (values.help) return undefined;
  const quick = values.quick ?? false;
  const defaults = DEFAULTS[suite];
  return {
    suite,
    connections: whole("connections", values.connections, defaults.connections[quick ? 1 : 0]),
    intervalMs: whole("interval", values.interval, quick ? Math.min(200, defaults.intervalMs) : defaults.intervalMs),
    churnPerSecond: whole("churn", values.churn, defaults.churnPerSecond, 0),
    rounds: whole("rounds", values.rounds, quick ? 3 : defaults.rounds),
    aloneSeconds: whole("alone", values.alone, quick ? 3 : 20),
    subjects: subjectsOf(values.subjects),
    quick,
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}
