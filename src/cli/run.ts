/** `headrace run`: the server itself, in the foreground. */
import type { Command } from "commander";
import { addConfigured, type ConfiguredOptions, readConfig } from "./configured.ts";
import type { CommandContext } from "./program.ts";

const HELP = `
Without a service: echo-line on 127.0.0.1:9000 and echo-frame on 127.0.0.1:9001.
A service without --listen is served on 127.0.0.1:9000.

Examples:
  $ headrace run
  $ headrace run hash-line --listen 0.0.0.0:9000 --workers 4
  $ headrace run ./game.js --listen '[::]:7000'
  $ headrace run --config /etc/headrace.yaml

Signals: TERM, INT and QUIT stop it gracefully (no new connections, what is in flight is answered, exit 0);
a second one cuts everything off, also exit 0. Variables: HEADRACE_WORKERS and so on, see headrace check --reference.
Logs are JSON lines on stdout; on a terminal they are readable.`;

export function addRun(program: Command, { signals, version }: CommandContext): void {
  addConfigured(program.command("run").description("serve, in the foreground"))
    .addHelpText("after", HELP)
    .action(async (service: string | undefined, options: ConfiguredOptions) => {
      const config = await readConfig(service, options);
      const { runPrimary } = await import("../primary/run.ts");
      const { captureSignals } = await import("../primary/signals.ts");
      const pretty = process.stdout.isTTY === true;
      const { printWelcome } = await import("./welcome.ts");
      await runPrimary({
        config,
        version,
        pretty,
        signals: signals ?? captureSignals(),
        announce: pretty ? printWelcome : undefined,
      });
    });
}
