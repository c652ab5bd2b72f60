/** `headrace doctor`: does this machine give what the configuration needs? Changes nothing. */
import type { Command } from "commander";
import { HeadraceError } from "../base/errors.ts";
import type { Config } from "../config/config.ts";
import type { Outcome } from "../primary/system-findings.ts";
import { addConfigured, type ConfiguredOptions, configReader } from "./configured.ts";

interface DoctorOptions extends ConfiguredOptions {
  readonly json?: boolean;
}

const HELP = `
Looks at limits, kernel settings (those of sysctl/90-headrace.conf that the configuration has a use for), memory, trouble
seen since boot (full accept queues, SYN cookies, dropped packets), connection tracking, network queues, huge pages, the
clock, the CPU governor, the control group and swap. Each finding is followed by the one command that repairs it; what
cannot be read is named as unknown. Limits are those of this shell: a systemd unit has its own (run it there with
systemd-run, or read LimitNOFILE of the unit).

A problem cannot hold, or loses connections now; a hint costs something under load. Exit code 1 when there is a problem,
else 0. --json: { findings: [{ severity, check, found, wanted, message, repair }], facts: [the rest] }.

Examples:
  $ headrace doctor
  $ headrace doctor --config /etc/headrace.yaml
  $ headrace doctor --json`;

export function addDoctor(program: Command): void {
  addConfigured(program.command("doctor").description("compare the machine with what the configuration needs"))
    .option("--json", "as JSON")
    .addHelpText("after", HELP)
    .action(async (service: string | undefined, { json = false, ...options }: DoctorOptions) => {
      const outcomes = await outcomesFor((await configReader(service, options))());
      process.stdout.write(json ? showJson(outcomes) : await showText(outcomes));
      const problems = outcomes.filter(({ severity }) => severity === "problem").length;
      if (problems > 0) {
        const findings = outcomes.filter((outcome) => "repair" in outcome).length;
        throw new HeadraceError("change-failed", `${problems} of ${findings} findings cannot hold on this machine`);
      }
    });
}

const SEVERITIES = ["problem", "hint", "ok", "unknown"] as const;

/** Problems first, what is fine last. */
async function outcomesFor(config: Config): Promise<Outcome[]> {
  const { totalmem } = await import("node:os");
  const { diagnose } = await import("../primary/diagnosis.ts");
  const { readMachine } = await import("../primary/machine.ts");
  const { packagedSettings } = await import("../primary/sysctl-file.ts");
  const { readSystem } = await import("../primary/system.ts");
  const { inspect, repairByFile } = await import("../primary/system-findings.ts");
  const { checkTls } = await import("./tls.ts");
  const machine = readMachine();
  const system = readSystem();
  const settings = packagedSettings(totalmem(), machine.pageBytes);
  const needed = diagnose(config, machine).map((finding) => repairByFile(finding, settings, system));
  const certificates = checkTls(config).map((warning) => ({
    ...({ severity: "hint", check: "certificate", found: "", wanted: "" } as const),
    ...warning,
  }));
  // What the configuration needs of a setting comes before what is good for servers in general.
  const seen = new Set(needed.map(({ check }) => check));
  const others = inspect(config, machine, system, settings).filter(({ check }) => !seen.has(check));
  const all = [...needed, ...certificates, ...others];
  return SEVERITIES.flatMap((severity) => all.filter((outcome) => outcome.severity === severity));
}

function showJson(outcomes: readonly Outcome[]): string {
  const findings = outcomes.filter((outcome) => "repair" in outcome);
  const facts = outcomes.filter((outcome) => !("repair" in outcome));
  return `${JSON.stringify({ findings, facts }, null, 2)}\n`;
}

async function showText(outcomes: readonly Outcome[]): Promise<string> {
  const { showOutcomes } = await import("./outcomes.ts");
  return showOutcomes(outcomes);
}
