/** `headrace check`: is the configuration right, can its certificates be used, do the services load? Starts nothing. */
import type { Command } from "commander";
import { addConfigured, type ConfiguredOptions, configReader } from "./configured.ts";

interface CheckOptions extends ConfiguredOptions {
  readonly jsonSchema?: boolean;
  readonly reference?: boolean;
}

const HELP = `
Prints the configuration as it would be used, defaults and the services' own values filled in.
Exit code 2 and one line per fault when something is wrong.

Examples:
  $ headrace check
  $ headrace check --config /etc/headrace.yaml
  $ headrace check ./game.js --listen 0.0.0.0:7000
  $ headrace check --reference | less
  $ headrace check --json-schema > headrace.schema.json`;

export function addCheck(program: Command): void {
  addConfigured(program.command("check").description("check the configuration and the services, without starting"))
    .option("--json-schema", "print the JSON Schema of the configuration file instead")
    .option("--reference", "print the table of all options instead")
    .addHelpText("after", HELP)
    .action(async (service: string | undefined, { jsonSchema, reference, ...options }: CheckOptions) => {
      process.stdout.write(await output(service, { jsonSchema, reference }, options));
    });
}

async function output(
  service: string | undefined,
  print: { readonly jsonSchema: boolean | undefined; readonly reference: boolean | undefined },
  options: ConfiguredOptions,
): Promise<string> {
  if (print.jsonSchema || print.reference) {
    const documented = await import("../config/reference.ts");
    return print.reference ? documented.configReference() : `${JSON.stringify(documented.jsonSchema(), null, 2)}\n`;
  }
  const config = (await configReader(service, options))();
  if (config.logFile !== undefined) {
    const { checkLogFile } = await import("../base/log-file.ts");
    checkLogFile(config.logFile);
  }
  const { checkTls } = await import("./tls.ts");
  for (const { message, repair } of checkTls(config)) process.stderr.write(`warning: ${message}\n  ${repair}\n`);
  const { showEffective } = await import("./effective.ts");
  return showEffective(config);
}
