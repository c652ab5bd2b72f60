/** The options that say what to serve, the same for `run` and `check`. */
import type { Command } from "commander";
import { BUILTIN_SERVICES, type Config } from "../config/config.ts";

export interface ConfiguredOptions {
  readonly config?: string;
  readonly listen?: string[];
  readonly workers?: string;
  readonly control?: string;
  readonly logLevel?: string;
}

const SERVICE =
  `what to serve: a built-in (${BUILTIN_SERVICES.join(", ")}) or the path of a module (.js, .mjs, .ts) ` +
  "whose default export is defineService({ … })";

export function addConfigured(command: Command): Command {
  return command
    .argument("[service]", SERVICE)
    .option("-c, --config <file>", "YAML or JSON configuration (default: headrace.yaml here, if there is one)")
    .option("-l, --listen <address>", "host:port to listen on; repeat for more", (one: string, all: string[] = []) => [
      ...all,
      one,
    ])
    .option("-w, --workers <n>", "worker processes (default: the CPUs this process may use)")
    .option("--control <path>", "where the control socket is (default: the runtime directory)")
    .option("--log-level <level>", "trace, debug, info, warn or error");
}

/**
 * A function that reads the configuration, now and at each reload: always with the variables, the flags and the
 * working directory of the start. Throws `usage` when that directory is gone; the function throws `config-invalid`
 * or `usage`.
 */
export async function configReader(service: string | undefined, options: ConfiguredOptions): Promise<() => Config> {
  const { loadConfig } = await import("../config/load.ts");
  const { logicalWorkingDirectory } = await import("../primary/working-directory.ts");
  const { config: file, ...flags } = options;
  const input = {
    file,
    env: { ...process.env },
    cwd: logicalWorkingDirectory(process.env),
    flags: { service, ...flags },
  };
  return () => loadConfig(input);
}
