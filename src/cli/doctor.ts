/** `headrace doctor`: does this machine give what the configuration needs? Changes nothing. */
import type { Command } from "commander";
import { HeadraceError } from "../base/errors.ts";
import { addConfigured, type ConfiguredOptions, configReader } from "./configured.ts";

interface DoctorOptions extends ConfiguredOptions {
  readonly json?: boolean;
}

const HELP = `
Each finding is followed by the command that repairs it. Limits are those of this shell: a systemd unit has its own
(run it there with systemd-run, or read LimitNOFILE of the unit). Exit code 1 when something cannot hold, else 0.

Examples:
  $ headrace doctor
  $ headrace doctor --config /etc/headrace.yaml
  $ headrace doctor --json`;

export function addDoctor(program: Command): void {
  addConfigured(program.command("doctor").description("compare the machine with what the configuration needs"))
    .option("--json", "as JSON")
    .addHelpText("after", HELP)
    .action(async (service: string | undefined, { json = false, ...options }: DoctorOptions) => {
      const config = (await configReader(service, options))();
      const { diagnose } = await import("../primary/diagnosis.ts");
      const { readMachine } = await import("../primary/machine.ts");
      const { checkTls } = await import("./tls.ts");
      const certificates = checkTls(config).map((warning) => ({ severity: "hint" as const, ...warning }));
      const findings = [...diagnose(config, readMachine()), ...certificates];
      const problems = findings.filter(({ severity }) => severity === "problem").length;
      const text = findings.map(({ severity, message, repair }) => `${severity}: ${message}\n  ${repair}\n`).join("");
      process.stdout.write(json ? `${JSON.stringify({ findings }, null, 2)}\n` : text || "nothing to repair\n");
      if (problems > 0) {
        throw new HeadraceError(
          "change-failed",
          `${problems} of ${findings.length} findings cannot hold on this machine`,
        );
      }
    });
}
