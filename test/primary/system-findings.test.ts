/** Machines that are not at hand: what each costs a server, and what repairs it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Config } from "#src/config/config.js";
import { loadConfig } from "#src/config/load.js";
import type { Finding } from "#src/primary/diagnosis.js";
import { type Machine, readMachine } from "#src/primary/machine.js";
import type { SysctlSetting } from "#src/primary/sysctl-file.js";
import type { System } from "#src/primary/system.js";
import { inspect, type Outcome, repairByFile } from "#src/primary/system-findings.js";

const MiB = 1024 ** 2;

/** A machine on which all is well. */
const SOUND: System = {
  sysctl: (key) => SETTINGS.find((setting) => setting.key === key)?.wanted,
  sysctlsReadOnly: false,
  container: undefined,
  openFiles: ["1024", "1048576"],
  tcp: () => 0,
  timeWait: 10,
  backlogDrops: 0,
  tracked: 10,
  cards: [{ name: "eth0", receiveQueues: 8, spread: false }],
  hugePages: "madvise",
  clock: { current: "tsc", available: ["tsc", "hpet"] },
  governor: { driver: "acpi-cpufreq", name: "performance" },
  cpuGroup: { quota: undefined, periods: 0, throttled: 0 },
  swapUsed: 0,
};

const setting = (key: string, wanted: string, more: Partial<SysctlSetting> = {}): SysctlSetting => ({
  ...{ key, wanted, rule: "at-least", host: false },
  ...more,
});

const SETTINGS: readonly SysctlSetting[] = [
  setting("net.core.somaxconn", "65535"),
  setting("net.core.netdev_max_backlog", "16384", { host: true }),
  setting("net.ipv4.tcp_migrate_req", "1", { rule: "exact" }),
  setting("net.ipv4.tcp_tw_reuse", "1", { rule: "exact" }),
  setting("net.ipv4.ip_local_reserved_ports", "9000", { rule: "ports" }),
  setting("net.netfilter.nf_conntrack_max", "500000", { host: true }),
];

const config: Config = loadConfig({ env: {}, flags: { workers: "4" }, cwd: "/" });
const withModule: Config = {
  ...config,
  listeners: config.listeners.map((one) => ({ ...one, service: { kind: "module", path: "/a.js", given: "a.js" } })),
};
const MACHINE: Machine = { ...readMachine(), cpus: 8, localPorts: [32_768, 60_999], trackedConnections: 500_000 };

function outcomes(system: Partial<System>, of: Config = config, machine: Partial<Machine> = {}): Outcome[] {
  return inspect(of, { ...MACHINE, ...machine }, { ...SOUND, ...system }, SETTINGS);
}

function findings(...asked: Parameters<typeof outcomes>): Finding[] {
  return outcomes(...asked).flatMap((outcome) => ("repair" in outcome ? [outcome] : []));
}

function only(...asked: Parameters<typeof outcomes>): Finding {
  const found = findings(...asked);
  assert.equal(found.length, 1, JSON.stringify(found));
  return found[0] as Finding;
}

const sysctls =
  (values: Readonly<Record<string, string | undefined>>): System["sysctl"] =>
  (key) =>
    key in values ? values[key] : SOUND.sysctl(key);

test("a sound machine: each check has said so, and nothing is to be repaired", () => {
  const said = outcomes({});
  assert.deepEqual([...new Set(said.map(({ severity }) => severity))], ["ok"]);
  assert.equal(new Set(said.map(({ check }) => check)).size, said.length);
});

test("what cannot be read is unknown, each by its name", () => {
  const blind = Object.fromEntries(Object.keys(SOUND).map((key) => [key, undefined])) as unknown as System;
  const said = outcomes({ ...blind, sysctl: () => undefined });
  assert.deepEqual(
    said.filter(({ severity }) => severity !== "unknown").map(({ check }) => check),
    ["kernel", "container"],
  );
  assert.ok(said.some(({ check }) => check === "network cards"));
});

for (const [what, system, message, repair, wanted] of [
  [
    "overflows",
    { tcp: (name) => ({ ListenOverflows: 5, ListenDrops: 9 })[name] ?? 0 },
    /5 newcomers .* 9 were dropped/,
    /^headrace scale 5 /,
  ],
  ["cookies", { tcp: (name) => (name === "SyncookiesSent" ? 5 : 0) }, /5 SYN cookies/, /^ss -Htn state syn-recv/],
  ["packet drops", { backlogDrops: 7 }, /7 packets/, /^sudo sysctl -w net\.core\.netdev_max_backlog=32768/],
  ["TIME_WAIT", { timeWait: 20_000 }, /20,000 sockets .* 28,232 ports/, /^ss -Htan state time-wait/],
  ["tracking, filling", { tracked: 400_000 }, /80 % full/, /nf_conntrack_max=1000000$/],
  ["huge pages", { hugePages: "always" }, /always on/, /^echo madvise \| sudo tee /, "madvise"],
  [
    "a slow clock",
    { clock: { current: "hpet", available: ["hpet", "tsc"] } },
    /read from hpet/,
    /^echo tsc \| /,
    "tsc",
  ],
  ["no other clock", { clock: { current: "xen", available: ["xen"] } }, /from xen/, /^clocksource=tsc/],
  ["the governor", { governor: { driver: "acpi-cpufreq", name: "powersave" } }, /governor is powersave/, /cpupower/],
  [
    "few queues",
    { cards: [{ name: "ens5", receiveQueues: 1, spread: false }] },
    /1 queue:/,
    /echo ff \| .*ethtool -L ens5 combined 4/,
  ],
  [
    "a CPU quota",
    { cpuGroup: { quota: 1.5, periods: 9, throttled: 0 } },
    /1\.5 CPUs' worth of time for 4 workers/,
    /^workers: 1 /,
  ],
  ["throttling", { cpuGroup: { quota: 4, periods: 9, throttled: 3 } }, /wait in 3 of 9 periods/, /^workers: 4 /],
  ["swap", { swapUsed: 900 * MiB }, /900 MiB are swapped out/, /vm\.swappiness=1/],
] as const satisfies readonly (readonly [string, Partial<System>, RegExp, RegExp, string?])[]) {
  test(`a hint, with one command: ${what}`, () => {
    const hint = only(system as Partial<System>);
    assert.equal(hint.severity, "hint");
    assert.match(hint.message, message);
    assert.match(hint.repair, repair);
    if (wanted !== undefined) assert.equal(hint.wanted, wanted);
  });
}

test("a firewall's table that is all but full drops newcomers: a problem", () => {
  assert.equal(only({ tracked: 460_000 }).severity, "problem");
  assert.deepEqual(findings({ tracked: undefined }, config, { trackedConnections: undefined }), []);
});

test("powersave of drivers that raise the frequency by themselves, and software that spreads, are fine", () => {
  assert.deepEqual(findings({ governor: { driver: "intel_pstate", name: "powersave" } }), []);
  assert.deepEqual(findings({ cards: [{ name: "eth0", receiveQueues: 1, spread: true }] }), []);
});

test("a setting that is worse is one command, where the configuration has a use for it", () => {
  const migrate = only({ sysctl: sysctls({ "net.ipv4.tcp_migrate_req": "0" }) });
  assert.deepEqual([migrate.check, migrate.found, migrate.wanted], ["net.ipv4.tcp_migrate_req", "0", "1"]);
  assert.match(migrate.repair, /^sudo \S+\/sysctl\/tune\.sh apply$/);
  // Built-in services connect to nobody.
  const reuse = { sysctl: sysctls({ "net.ipv4.tcp_tw_reuse": "2" }) };
  assert.deepEqual(findings(reuse), []);
  assert.equal(only(reuse, withModule).check, "net.ipv4.tcp_tw_reuse");
  const gone = outcomes({ sysctl: sysctls({ "net.ipv4.tcp_migrate_req": undefined }) });
  assert.equal(gone.find(({ check }) => check === "net.ipv4.tcp_migrate_req")?.severity, "unknown");
});

test("trouble that the file's values would mend is mended by them", () => {
  const system = { tcp: () => 5, sysctl: sysctls({ "net.core.somaxconn": "128" }) };
  const queue = findings(system).find(({ check }) => check === "full accept queues");
  assert.match(queue?.repair ?? "", /tune\.sh apply$/);
});

test("what the configuration needs is set by the file where that is enough, else by itself", () => {
  const needed = (check: string, wanted: string): Finding => ({
    ...{ severity: "hint", check, wanted, found: "1", message: "", repair: "by itself" },
  });
  const low = { ...SOUND, sysctl: () => "1" };
  const repaired = repairByFile(needed("net.core.somaxconn", "4096"), SETTINGS, low);
  assert.deepEqual([repaired.wanted, /tune\.sh apply$/.test(repaired.repair)], ["65535", true]);
  assert.equal(repairByFile(needed("net.core.somaxconn", "70000"), SETTINGS, low).repair, "by itself");
  assert.equal(repairByFile(needed("memory", "70000"), SETTINGS, low).repair, "by itself");
  assert.match(
    repairByFile(needed("net.ipv4.ip_local_reserved_ports", "40000"), SETTINGS, low).repair,
    /tune\.sh apply --reserve 40000$/,
  );
});

test("in a container the command is that of whoever starts it", () => {
  const worse = (container: System["container"], key: string): string =>
    findings({ container, sysctlsReadOnly: true, sysctl: sysctls({ [key]: "0" }) }).find(({ check }) => check === key)
      ?.repair ?? "";
  const own = "net.ipv4.tcp_migrate_req";
  assert.equal(worse("docker", own), `docker run --sysctl ${own}="1" …`);
  assert.match(worse("kubernetes", own), /^securityContext: .*name: net\.ipv4\.tcp_migrate_req, value: "1"/);
  assert.match(worse("fargate", own), /^systemControls: /);
  assert.match(worse("fargate", "net.core.netdev_max_backlog"), /Fargate fixes it/);
  assert.match(worse("docker", "net.core.netdev_max_backlog"), /tune\.sh apply {3}\(on the host\)$/);
});

test("without the file of settings they are unknown, not fine", () => {
  const unknown = (settings: readonly SysctlSetting[]): string[] =>
    inspect(config, MACHINE, SOUND, settings).flatMap(({ severity, check, found }) =>
      severity === "unknown" && check === "kernel settings" ? [found] : [],
    );
  assert.deepEqual(unknown([]), ["(sysctl/90-headrace.conf is missing)"]);
  assert.deepEqual(unknown(SETTINGS), []);
});
