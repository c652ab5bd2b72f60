/** `headrace run`: the server itself, in the foreground. */
import type { Command } from "commander";
import { addConfigured, type ConfiguredOptions, configReader } from "./configured.ts";
import type { CommandContext } from "./program.ts";

const HELP = `
Without a service: echo-line on 127.0.0.1:9000 and echo-frame on 127.0.0.1:9001; and without a file too, the admin
server on 127.0.0.1:9900.
A service without --listen is served on 127.0.0.1:9000.

Examples:
  $ headrace run
  $ headrace run hash-line --listen 0.0.0.0:9000 --workers 4
  $ headrace run ./game.js --listen '[::]:7000'
  $ headrace run --config /etc/headrace.yaml

Signals: TERM, INT and QUIT stop it gracefully (no new connections, what is in flight is answered, exit 0);
a second one cuts everything off, also exit 0. HUP reads the configuration again, USR2 hands over to the code now on
disk, TTIN and TTOU add and remove a worker: nobody is disconnected by these.

The admin server (admin.address) wants a token: HEADRACE_ADMIN_TOKEN, or the one in the file whose path is printed.

Variables: HEADRACE_WORKERS and so on, see headrace check --reference.
Logs are JSON lines on stdout; on a terminal they are readable.`;

export function addRun(program: Command, { signals, version }: CommandContext): void {
  addConfigured(program.command("run").description("serve, in the foreground"))
    .addHelpText("after", HELP)
    .action(async (service: string | undefined, options: ConfiguredOptions) => {
      const { HANDOVER_VARIABLE } = await import("../control/handover-messages.ts");
      const successor = process.env[HANDOVER_VARIABLE] !== undefined;
      // No option of the configuration, and not for what this process starts.
      delete process.env[HANDOVER_VARIABLE];
      const readConfig = await configReader(service, options);
      const config = readConfig();
      const { commandAsGiven, logicalWorkingDirectory } = await import("../primary/working-directory.ts");
      // Before anything sets the process's title.
      const directory = logicalWorkingDirectory(process.env);
      const command = commandAsGiven(directory, process.env);
      const { runPrimary } = await import("../primary/run.ts");
      const { captureSignals } = await import("../primary/signals.ts");
      const pretty = process.stdout.isTTY === true;
      const { printWelcome } = await import("./welcome.ts");
      await runPrimary({
        config,
        readConfig,
        launch: { command, directory },
        successor,
        version,
        pretty,
        signals: signals ?? captureSignals(),
        announce: pretty ? printWelcome : undefined,
      });
    });
}
