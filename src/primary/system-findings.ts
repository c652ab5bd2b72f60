/**
 * What of a machine (system.ts) costs a server something: kernel settings that are worse than sysctl/90-headrace.conf
 * has them, where this configuration has a use for them, and trouble that can be seen. Pure; `headrace doctor` shows it
 * beside diagnosis.ts. Every check has an outcome: a finding, fine, or unknown; only what loses connections now is a problem.
 */
import type { Config } from "../config/config.ts";
import { descriptorsNeeded, type Finding, RESERVED_PORTS } from "./diagnosis.ts";
import type { Machine } from "./machine.ts";
import { betterOf, type SysctlSetting, tuneCommand } from "./sysctl-file.ts";
import type { NetworkCard, System } from "./system.ts";

/** What was looked at and needs nothing done, or could not be looked at. */
interface Fact {
  readonly severity: "ok" | "unknown";
  readonly check: string;
  readonly found: string;
  readonly wanted: string;
}

export type Outcome = Finding | Fact;

const many = (count: number): string => count.toLocaleString("en-US");
const share = (part: number): string => `${Math.round(part * 100)} %`;
const ok = (check: string, found: string, wanted = ""): Fact => ({ severity: "ok", check, found, wanted });
const unknown = (check: string): Fact => ({ severity: "unknown", check, found: "?", wanted: "" });

interface Asked {
  readonly config: Config;
  readonly machine: Machine;
  readonly system: System;
  readonly settings: readonly SysctlSetting[];
}

// --- kernel settings -----------------------------------------------------------------------------------------------

type Use = (config: Config) => boolean;
const ofTcp: Use = ({ listeners }) => listeners.some(({ address }) => address.protocol === "tcp");
const ofUdp: Use = ({ listeners }) => listeners.some(({ address }) => address.protocol === "udp");
/** Only services of the user's own connect to other servers. */
const ofCalls: Use = ({ listeners }) => listeners.some(({ service }) => service.kind === "module");

/** What each is for; those that are not here are judged by diagnosis.ts, by the configuration's own figures. */
const USES: Readonly<Record<string, { readonly use: Use; readonly costs: string }>> = {
  "net.ipv4.tcp_syncookies": { use: ofTcp, costs: "a flood of SYNs shuts everybody out" },
  "net.ipv4.tcp_migrate_req": {
    use: ofTcp,
    costs: "a worker that scale takes away resets who is mid-handshake with it",
  },
  "net.core.netdev_max_backlog": { use: () => true, costs: "a burst of packets is dropped before TCP and UDP see it" },
  "net.ipv4.ip_local_port_range": { use: ofCalls, costs: "services run out of ports for connections to one server" },
  "net.ipv4.tcp_tw_reuse": { use: ofCalls, costs: "each connection that a service closes keeps its port for a minute" },
  "net.ipv4.tcp_fin_timeout": { use: ofCalls, costs: "connections half closed linger" },
  "net.ipv4.tcp_keepalive_time": { use: ofCalls, costs: "services notice late that a peer has gone" },
  "net.ipv4.tcp_keepalive_intvl": { use: ofCalls, costs: "services notice late that a peer has gone" },
  "net.ipv4.tcp_keepalive_probes": { use: ofCalls, costs: "services notice late that a peer has gone" },
  "net.ipv4.tcp_rmem": { use: ofTcp, costs: "few bytes in flight, slow over long distances" },
  "net.ipv4.tcp_wmem": { use: ofTcp, costs: "few bytes in flight, slow over long distances" },
  "net.ipv4.udp_mem": { use: ofUdp, costs: "datagrams are dropped when all buffers together reach it" },
  "net.core.wmem_max": { use: ofUdp, costs: "answers of a burst that find no room are lost" },
  "net.core.rmem_default": { use: ofUdp, costs: "less room for datagrams" },
  "net.netfilter.nf_conntrack_tcp_timeout_established": { use: ofTcp, costs: "clients that vanished fill the table" },
  "net.netfilter.nf_conntrack_tcp_timeout_time_wait": { use: ofTcp, costs: "closed connections fill the table" },
};

/** How a setting is set where it cannot be from here; undefined where it can. */
function elsewhere({ key, host, wanted }: SysctlSetting, { container, sysctlsReadOnly }: System): string | undefined {
  if (!sysctlsReadOnly) return undefined;
  if (host) return container === "fargate" ? "nothing: Fargate fixes it" : `${tuneCommand()}   (on the host)`;
  switch (container) {
    case "fargate":
      return `systemControls: [{ namespace: ${key}, value: "${wanted}" }]   (in the task definition)`;
    case "kubernetes":
      return `securityContext: { sysctls: [{ name: ${key}, value: "${wanted}" }] }   (in the pod)`;
    default:
      return `docker run --sysctl ${key}="${wanted}" …`;
  }
}

function settingOutcome(setting: SysctlSetting, { config, system }: Asked): Outcome {
  const { key, rule } = setting;
  const found = system.sysctl(key);
  if (found === undefined) return unknown(key);
  const wanted = betterOf(rule, found, setting.wanted);
  const purpose = USES[key];
  const idle = key.startsWith("net.netfilter.") && !system.tracked;
  if (wanted === found || idle || !purpose?.use(config)) return ok(key, found || "none");
  return {
    severity: "hint",
    check: key,
    found,
    wanted,
    message: `${key} is ${found}, better ${wanted}: ${purpose.costs}`,
    repair: elsewhere({ ...setting, wanted }, system) ?? tuneCommand(),
  };
}

/** Where the packaged file covers what a finding wants, its repair is the one command that sets the file's values. */
export function repairByFile(finding: Finding, settings: readonly SysctlSetting[], system: System): Finding {
  const setting = settings.find(({ key }) => key === finding.check);
  const found = setting && system.sysctl(setting.key);
  if (!setting || found === undefined) return finding;
  if (setting.key === RESERVED_PORTS) {
    const repair =
      elsewhere({ ...setting, wanted: finding.wanted }, system) ?? tuneCommand("--reserve", finding.wanted);
    return { ...finding, repair };
  }
  if (!/^\d+$/.test(finding.wanted) || betterOf(setting.rule, finding.wanted, setting.wanted) !== setting.wanted) {
    return finding;
  }
  const wanted = betterOf(setting.rule, found, setting.wanted);
  return { ...finding, wanted, repair: elsewhere({ ...setting, wanted }, system) ?? tuneCommand() };
}

/** The command that sets the file's values where one of these is worse; else there is nothing to gain by it. */
function byFile({ system, settings }: Asked, keys: readonly string[], otherwise: string): string {
  const worse = settings.find(({ key, rule, wanted }) => {
    const found = keys.includes(key) ? system.sysctl(key) : undefined;
    return found !== undefined && betterOf(rule, found, wanted) !== found;
  });
  return worse ? (elsewhere(worse, system) ?? tuneCommand()) : otherwise;
}

// --- trouble seen --------------------------------------------------------------------------------------------------

const CONNTRACK_MAX = "net.netfilter.nf_conntrack_max";
const FULL = 0.9;
const FILLING = 0.7;

function tracking(asked: Asked): Outcome {
  const check = "tracked connections";
  const most = asked.machine.trackedConnections;
  const { tracked } = asked.system;
  if (most === undefined) return ok(check, "not tracked");
  if (tracked === undefined) return unknown(check);
  const fill = tracked / most;
  const found = `${many(tracked)} of ${many(most)}`;
  if (fill < FILLING) return ok(check, found);
  return {
    severity: fill >= FULL ? "problem" : "hint",
    check,
    found,
    wanted: `below ${many(Math.floor(most * FILLING))}`,
    message: `the firewall's table of connections is ${share(fill)} full (${found}): it drops newcomers when it is full`,
    repair: byFile(asked, [CONNTRACK_MAX], `sudo sysctl -w ${CONNTRACK_MAX}=${most * 2}`),
  };
}

function overflows(asked: Asked): Outcome {
  const check = "full accept queues";
  const { tcp } = asked.system;
  const count = tcp?.("ListenOverflows");
  if (count === undefined) return unknown(check);
  const drops = tcp?.("ListenDrops") ?? count;
  if (drops === 0) return ok(check, "none since boot");
  return {
    severity: "hint",
    check,
    found: many(drops),
    wanted: "0",
    message: `since boot ${many(count)} newcomers found an accept queue full, ${many(drops)} were dropped for any reason (ListenOverflows, ListenDrops; of all servers here): they wait for a retransmission`,
    repair: byFile(
      asked,
      ["net.core.somaxconn"],
      `headrace scale ${asked.config.workers + 1}   (if it still grows: nstat -a TcpExtListenOverflows)`,
    ),
  };
}

function cookies({ system: { tcp } }: Asked): Outcome {
  const check = "SYN cookies sent";
  const count = tcp?.("SyncookiesSent");
  if (count === undefined) return unknown(check);
  if (count === 0) return ok(check, "none since boot");
  return {
    severity: "hint",
    check,
    found: many(count),
    wanted: "0",
    message: `since boot ${many(count)} SYN cookies were sent: a flood, or more newcomers at once than net.ipv4.tcp_max_syn_backlog has room for`,
    repair: "ss -Htn state syn-recv   (from one network: a flood; from everywhere: a larger queue)",
  };
}

const NETDEV_BACKLOG = "net.core.netdev_max_backlog";

function packetDrops(asked: Asked): Outcome {
  const check = "packets dropped by CPUs";
  const { backlogDrops: count, sysctl } = asked.system;
  if (count === undefined) return unknown(check);
  if (count === 0) return ok(check, "none since boot");
  return {
    severity: "hint",
    check,
    found: many(count),
    wanted: "0",
    message: `since boot ${many(count)} packets found a CPU's backlog full (/proc/net/softnet_stat, ${NETDEV_BACKLOG})`,
    repair: byFile(
      asked,
      [NETDEV_BACKLOG],
      `sudo sysctl -w ${NETDEV_BACKLOG}=${2 * Number(sysctl(NETDEV_BACKLOG) ?? 8_192)}   (if the second column of /proc/net/softnet_stat still grows)`,
    ),
  };
}

function timeWait(asked: Asked): Outcome {
  const check = "ports in TIME_WAIT";
  const { localPorts } = asked.machine;
  const { timeWait: count } = asked.system;
  if (count === undefined || !localPorts) return unknown(check);
  const ports = localPorts[1] - localPorts[0] + 1;
  const found = `${many(count)} of ${many(ports)}`;
  if (count < ports / 2) return ok(check, found);
  return {
    severity: "hint",
    check,
    found,
    wanted: `below ${many(Math.floor(ports / 2))}`,
    message: `${many(count)} sockets are in TIME_WAIT; connections to one server have ${many(ports)} ports: clients that reconnect may find none`,
    repair: byFile(
      asked,
      ["net.ipv4.tcp_tw_reuse", "net.ipv4.ip_local_port_range"],
      "ss -Htan state time-wait | awk '{ print $4 }' | sort | uniq -c | sort -n   (who reconnects; clients that keep connections, as defineClient does, have none)",
    ),
  };
}

// --- the machine ---------------------------------------------------------------------------------------------------

function openFiles({ config, system }: Asked): Outcome {
  const check = "open files, soft and hard";
  if (!system.openFiles) return unknown(check);
  return ok(check, system.openFiles.join(" "), `${many(descriptorsNeeded(config))} in a worker`);
}

/** A bit for each CPU, as rps_cpus takes it. */
const mask = (cpus: number): string => ((1n << BigInt(Math.min(cpus, 32))) - 1n).toString(16);

function card({ name, receiveQueues, spread }: NetworkCard, { config, machine }: Asked): Outcome {
  const check = `queues of ${name}`;
  const wanted = Math.min(machine.cpus, config.workers);
  const found = `${receiveQueues}${spread ? ", spread by RPS" : ""}`;
  if (spread || receiveQueues >= wanted) return ok(check, found);
  return {
    severity: "hint",
    check,
    found,
    wanted: many(wanted),
    message: `${name} receives by ${receiveQueues} queue${receiveQueues === 1 ? "" : "s"}: so few CPUs do the kernel's work for ${config.workers} workers`,
    repair: `for q in /sys/class/net/${name}/queues/rx-*/rps_cpus; do echo ${mask(machine.cpus)} | sudo tee $q; done   (or, if the card has more: ethtool -L ${name} combined ${wanted})`,
  };
}

function cards(asked: Asked): Outcome[] {
  return asked.system.cards?.map((one) => card(one, asked)) ?? [unknown("network cards")];
}

function hugePages({ system }: Asked): Outcome {
  const check = "transparent huge pages";
  const { hugePages: found } = system;
  if (found === undefined) return unknown(check);
  if (found !== "always") return ok(check, found);
  return {
    severity: "hint",
    check,
    found,
    wanted: "madvise",
    message: "transparent huge pages are always on: workers take more memory, and wait while pages are put together",
    repair: "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
  };
}

/** Reading one of these is a system call, or a device's register. */
const SLOW_CLOCKS: ReadonlySet<string> = new Set(["hpet", "acpi_pm", "pit", "xen", "jiffies", "refined-jiffies"]);

function clock({ system }: Asked): Outcome {
  const check = "clock source";
  if (!system.clock) return unknown(check);
  const { current, available } = system.clock;
  if (!SLOW_CLOCKS.has(current)) return ok(check, current);
  const better = available.find((name) => name !== "" && !SLOW_CLOCKS.has(name));
  const set = "sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource";
  return {
    severity: "hint",
    check,
    found: current,
    wanted: better ?? "tsc",
    message: `the clock is read from ${current}, which takes ten times as long as from the CPU, many times for each message`,
    repair: better ? `echo ${better} | ${set}` : "clocksource=tsc tsc=reliable   (on the kernel's command line)",
  };
}

/** Drivers whose "powersave" raises the frequency under load all the same. */
const DYNAMIC_DRIVERS: ReadonlySet<string> = new Set(["intel_pstate", "amd-pstate-epp"]);

function governor({ system }: Asked): Outcome {
  const check = "CPU governor";
  if (!system.governor) return unknown(check);
  const { name, driver } = system.governor;
  const slow = name === "powersave" ? !DYNAMIC_DRIVERS.has(driver) : ["ondemand", "conservative"].includes(name);
  if (!slow) return ok(check, name);
  return {
    severity: "hint",
    check,
    found: name,
    wanted: "performance",
    message: `the CPU governor is ${name}: after a quiet moment the first messages are served by a slow CPU`,
    repair: "sudo cpupower frequency-set -g performance",
  };
}

function cpuGroup({ config: { workers }, system: { cpuGroup: group } }: Asked): Outcome {
  const check = "CPU share of the group";
  if (!group) return unknown(check);
  const { quota, periods, throttled } = group;
  const found = quota === undefined ? "no bound" : `${quota.toFixed(1)} CPUs`;
  const repair = `workers: ${Math.max(1, Math.floor(quota ?? workers))}   (in the configuration), or more CPU for the container`;
  if (quota !== undefined && quota < workers) {
    const message = `the control group gets ${quota.toFixed(1)} CPUs' worth of time for ${workers} workers: past it all stand still until the period (100 ms) is over`;
    return { severity: "hint", check, found, wanted: many(workers), message, repair };
  }
  if (throttled === 0) return ok(check, found);
  const message = `the control group was made to wait in ${many(throttled)} of ${many(periods)} periods (cpu.stat): messages wait as long`;
  return { severity: "hint", check, found: `${many(throttled)} throttled`, wanted: "0", message, repair };
}

/** Less is what any machine puts aside. */
const SWAP_BYTES = 256 * 1024 ** 2;

function swap({ system: { swapUsed: bytes, sysctl } }: Asked): Outcome {
  const check = "swap in use";
  if (bytes === undefined) return unknown(check);
  const found = `${many(Math.ceil(bytes / 1024 ** 2))} MiB`;
  if (bytes <= SWAP_BYTES) return ok(check, found);
  return {
    severity: "hint",
    check,
    found,
    wanted: "0",
    message: `${found} are swapped out (vm.swappiness ${sysctl("vm.swappiness") ?? "unknown"}): a worker that is waits for the disk`,
    repair: "sudo sysctl -w vm.swappiness=1   (and more memory, or less limits.bufferMemory)",
  };
}

function surroundings({ machine, system, settings: wanted }: Asked): Outcome[] {
  const settings = system.sysctlsReadOnly ? ", settings are read-only" : "";
  const missing: Fact = {
    ...{ severity: "unknown", check: "kernel settings", wanted: "" },
    found: "(sysctl/90-headrace.conf is missing)",
  };
  return [
    ...[ok("kernel", machine.kernel), ok("container", `${system.container ?? "none"}${settings}`)],
    ...(wanted.length === 0 ? [missing] : []),
  ];
}

/** Each check's outcome, of what diagnosis.ts does not look at. */
export function inspect(
  config: Config,
  machine: Machine,
  system: System,
  settings: readonly SysctlSetting[],
): Outcome[] {
  const asked = { config, machine, system, settings };
  const single = [
    openFiles,
    tracking,
    overflows,
    cookies,
    packetDrops,
    timeWait,
    hugePages,
    clock,
    governor,
    cpuGroup,
    swap,
  ];
  return [
    ...surroundings(asked),
    ...single.map((check) => check(asked)),
    ...cards(asked),
    ...settings.map((setting) => settingOutcome(setting, asked)),
  ];
}
