/** The command line of the soak. A mistake is a UsageError, which main.ts answers with exit 2. */
import { parseFlags, whole } from "../flags.ts";

export interface SoakOptions {
  readonly minutes: number;
  /** Held by ordinary clients. */
  readonly connections: number;
  readonly churnPerSecond: number;
  /** Of the order of changes: the same seed gives the same one. */
  readonly seed: number;
  readonly jsonFile?: string;
}

export const SOAK_USAGE = `npm run bench -- soak [options]

  Ordinary clients, who check every reply, beside hostile ones, while workers are killed and the server is reloaded,
  upgraded, scaled and drained in random order. In the end nothing may be left: connections, bytes, descriptors, memory,
  processes, files. Whoever is not with a worker that is killed may notice nothing.

  --minutes N            how long (60)
  --connections N        held by ordinary clients (500)
  --churn N              short connections per second beside them (50)
  --seed N               of the order of changes (from the clock; it is printed)
  --json FILE            raw figures`;

const SYNTAX = {
  minutes: { type: "string" },
  connections: { type: "string" },
  churn: { type: "string" },
  seed: { type: "string" },
  json: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** Returns undefined when help was asked for. Throws UsageError. */
export function parseSoak(args: readonly string[]): SoakOptions | undefined {
  const values = parseFlags(args, SYNTAX);
  if (values.help) return undefined;
  return {
    minutes: whole("minutes", values.minutes, 60),
    connections: whole("connections", values.connections, 500),
    churnPerSecond: whole("churn", values.churn, 50),
    seed: whole("seed", values.seed, Date.now() % 1_000_000),
    ...(values.json === undefined ? {} : { jsonFile: values.json }),
  };
}
