/**
 * What this machine does, beside what it allows (machine.ts): its kernel settings, counters of trouble seen since boot,
 * network cards, clock, memory pages, control group. Read once for `headrace doctor`; what cannot be read is undefined
 * and told as unknown. `root` is the folder that /proc and /sys are in.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface NetworkCard {
  readonly name: string;
  readonly receiveQueues: number;
  /** Software spreads what a queue receives over CPUs (RPS). */
  readonly spread: boolean;
}

interface CpuGroup {
  /** CPUs' worth of time that the control group gets; undefined where it has no bound. */
  readonly quota: number | undefined;
  readonly periods: number;
  /** Of those, in how many it was made to wait. */
  readonly throttled: number;
}

type ContainerKind = "docker" | "kubernetes" | "fargate" | "other";

export interface System {
  /** Value of a kernel setting, one blank between numbers. */
  readonly sysctl: (key: string) => string | undefined;
  /** /proc/sys is mounted read-only. */
  readonly sysctlsReadOnly: boolean;
  readonly container: ContainerKind | undefined;
  /** "Max open files" of this process, soft and hard. */
  readonly openFiles: readonly [string, string] | undefined;
  /** TcpExt of /proc/net/netstat: of this network namespace, since it is there. */
  readonly tcp: ((name: string) => number | undefined) | undefined;
  /** TCP sockets in TIME_WAIT. */
  readonly timeWait: number | undefined;
  /** Packets that found a CPU's backlog full (net.core.netdev_max_backlog). */
  readonly backlogDrops: number | undefined;
  /** Connections that the firewall tracks now; undefined where it tracks none. */
  readonly tracked: number | undefined;
  /** Those that are up and are no software. */
  readonly cards: readonly NetworkCard[] | undefined;
  /** transparent_hugepage/enabled: always, madvise or never. */
  readonly hugePages: string | undefined;
  readonly clock: { readonly current: string; readonly available: readonly string[] } | undefined;
  /** scaling_driver and scaling_governor of the first CPU; undefined where frequency is not this system's. */
  readonly governor: { readonly driver: string; readonly name: string } | undefined;
  readonly cpuGroup: CpuGroup | undefined;
  /** Bytes. */
  readonly swapUsed: number | undefined;
}

/** A file's text; undefined where there is none or it is hidden. */
type Reader = (path: string) => string | undefined;

function readerOf(root: string): Reader {
  return (path) => {
    try {
      return readFileSync(join(root, path), "utf8").trim();
    } catch {
      return undefined;
    }
  };
}

function countOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

function field(text: string | undefined, pattern: RegExp): number | undefined {
  return countOf(pattern.exec(text ?? "")?.[1]);
}

/** A line of names, then a line of values. */
function tcpCounters(text: string | undefined): System["tcp"] {
  const [names, values] = (text ?? "").split("\n").filter((line) => line.startsWith("TcpExt:"));
  if (names === undefined || values === undefined) return undefined;
  const counted = values.split(" ");
  const places = new Map(names.split(" ").map((name, at) => [name, at]));
  return (name) => countOf(counted[places.get(name) ?? -1]);
}

/** One line a CPU, in hexadecimal; the second column is what was dropped. */
function backlogDrops(text: string | undefined): number | undefined {
  const drops = text?.split("\n").map((line) => Number.parseInt(line.split(/\s+/)[1] ?? "", 16));
  const sum = drops?.reduce((all, one) => all + one, 0);
  return Number.isFinite(sum) ? sum : undefined;
}

function networkCards(root: string, read: Reader): NetworkCard[] | undefined {
  try {
    const names = readdirSync(join(root, "/sys/class/net"));
    return names.flatMap((name) => {
      const folder = `/sys/class/net/${name}`;
      if (!existsSync(join(root, folder, "device")) || read(`${folder}/operstate`) === "down") return [];
      const queues = readdirSync(join(root, folder, "queues")).filter((queue) => queue.startsWith("rx-"));
      const spread = queues.some((queue) => /[1-9a-f]/.test(read(`${folder}/queues/${queue}/rps_cpus`) ?? ""));
      return [{ name, receiveQueues: queues.length, spread }];
    });
  } catch {
    return undefined;
  }
}

function clockSource(read: Reader): System["clock"] {
  const folder = "/sys/devices/system/clocksource/clocksource0";
  const current = read(`${folder}/current_clocksource`);
  if (current === undefined) return undefined;
  return { current, available: (read(`${folder}/available_clocksource`) ?? "").split(/\s+/) };
}

function governor(read: Reader): System["governor"] {
  const folder = "/sys/devices/system/cpu/cpu0/cpufreq";
  const name = read(`${folder}/scaling_governor`);
  return name === undefined ? undefined : { driver: read(`${folder}/scaling_driver`) ?? "", name };
}

/** Of the group and all around it, the one with the smallest quota; cgroup v2, else v1. */
function cpuGroup(read: Reader): CpuGroup | undefined {
  const groups = read("/proc/self/cgroup") ?? "";
  const v1 = /^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:(.*)$/m.exec(groups)?.[1];
  const base = v1 === undefined ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
  const own = v1 ?? /^0::(.*)$/m.exec(groups)?.[1] ?? "/";
  let least: CpuGroup | undefined;
  for (let path = own; ; path = path.slice(0, path.lastIndexOf("/"))) {
    const folder = `${base}${path === "/" ? "" : path}`;
    const stat = read(`${folder}/cpu.stat`);
    if (stat !== undefined) {
      const quota = v1 === undefined ? quotaOf(read(`${folder}/cpu.max`)) : quotaV1(read, folder);
      const periods = field(stat, /^nr_periods (\d+)$/m) ?? 0;
      const throttled = field(stat, /^nr_throttled (\d+)$/m) ?? 0;
      const tighter = (quota ?? Number.POSITIVE_INFINITY) < (least?.quota ?? Number.POSITIVE_INFINITY);
      if (!least || tighter) least = { quota, periods, throttled };
    }
    if (path === "" || path === "/") return least;
  }
}

/** "200000 100000": microseconds of CPU time in each period. */
function quotaOf(text: string | undefined): number | undefined {
  const [quota, period] = (text ?? "").split(" ").map(countOf);
  return quota === undefined || !period ? undefined : quota / period;
}

function quotaV1(read: Reader, folder: string): number | undefined {
  return quotaOf(`${read(`${folder}/cpu.cfs_quota_us`) ?? ""} ${read(`${folder}/cpu.cfs_period_us`) ?? ""}`);
}

function container(root: string, env: NodeJS.ProcessEnv): ContainerKind | undefined {
  if (env.AWS_EXECUTION_ENV?.includes("FARGATE")) return "fargate";
  if (env.KUBERNETES_SERVICE_HOST || existsSync(join(root, "/var/run/secrets/kubernetes.io"))) return "kubernetes";
  if (["/.dockerenv", "/run/.containerenv"].some((path) => existsSync(join(root, path)))) return "docker";
  return env.container ? "other" : undefined;
}

/** The last mount that stands there decides. */
function sysctlsReadOnly(mounts: string | undefined): boolean {
  const found = mounts?.split("\n").filter((line) => line.split(" ")[4] === "/proc/sys");
  return /^ro\b/.test(found?.at(-1)?.split(" ")[5] ?? "");
}

function openFiles(limits: string | undefined): System["openFiles"] {
  const [, soft, hard] = /^Max open files\s+(\S+)\s+(\S+)/m.exec(limits ?? "") ?? [];
  return soft === undefined || hard === undefined ? undefined : [soft, hard];
}

function swapUsed(meminfo: string | undefined): number | undefined {
  const total = field(meminfo, /^SwapTotal:\s+(\d+) kB$/m);
  const free = field(meminfo, /^SwapFree:\s+(\d+) kB$/m);
  return total === undefined || free === undefined ? undefined : (total - free) * 1024;
}

/** Never throws. */
export function readSystem(root = "/", env: NodeJS.ProcessEnv = process.env): System {
  const read = readerOf(root);
  return {
    sysctl: (key) => read(`/proc/sys/${key.replaceAll(".", "/")}`)?.replaceAll(/\s+/g, " "),
    sysctlsReadOnly: sysctlsReadOnly(read("/proc/self/mountinfo")),
    container: container(root, env),
    openFiles: openFiles(read("/proc/self/limits")),
    tcp: tcpCounters(read("/proc/net/netstat")),
    timeWait: field(read("/proc/net/sockstat"), /^TCP:.* tw (\d+)/m),
    backlogDrops: backlogDrops(read("/proc/net/softnet_stat")),
    tracked: countOf(read("/proc/sys/net/netfilter/nf_conntrack_count")),
    cards: networkCards(root, read),
    hugePages: /\[(\w+)\]/.exec(read("/sys/kernel/mm/transparent_hugepage/enabled") ?? "")?.[1],
    clock: clockSource(read),
    governor: governor(read),
    cpuGroup: cpuGroup(read),
    swapUsed: swapUsed(read("/proc/meminfo")),
  };
}
