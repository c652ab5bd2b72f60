/** The three suites about handover, and what each of them gives back. */
import type { Machine } from "../machine.ts";
import { compareHandover } from "./handover.ts";
import { measureMigration } from "./migrate.ts";
import type { HandoverOptions } from "./options.ts";
import { measureRespawn } from "./respawn.ts";

export interface SuiteResult {
  readonly text: string;
  /** Raw figures. */
  readonly data: object;
  /** headrace kept every promise. */
  readonly sound: boolean;
}

export function runSuite(
  options: HandoverOptions,
  machine: Machine,
  progress: (text: string) => void,
): Promise<SuiteResult> {
  switch (options.suite) {
    case "handover":
      return compareHandover(options, machine, progress);
    case "migrate":
      return measureMigration(options, machine, progress);
    case "respawn":
      return measureRespawn(options, machine, progress);
  }
}
