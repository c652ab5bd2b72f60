/** A machine is read from folders made up like /proc and /sys. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { readSystem, type System } from "#src/primary/system.js";
import { makeFolder } from "../support/folder.js";

function systemOf(t: TestContext, files: Readonly<Record<string, string>>, env: NodeJS.ProcessEnv = {}): System {
  const root = makeFolder(t);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return readSystem(root, env);
}

test("where nothing can be read, nothing is known, and nothing fails", (t) => {
  const { sysctl, sysctlsReadOnly, ...others } = systemOf(t, {});
  assert.deepEqual([sysctl("net.core.somaxconn"), sysctlsReadOnly], [undefined, false]);
  assert.deepEqual(
    Object.entries(others).filter(([, value]) => value !== undefined),
    [],
  );
});

test("what is there but makes no sense is not known either", (t) => {
  const { sysctl, sysctlsReadOnly, clock, ...others } = systemOf(t, {
    "proc/net/netstat": "TcpExt: A B\n",
    "proc/net/sockstat": "TCP: gone\n",
    "proc/net/softnet_stat": "zz\n",
    "proc/meminfo": "SwapTotal: many kB\n",
    "proc/self/limits": "none\n",
    "proc/self/cgroup": "",
    "sys/kernel/mm/transparent_hugepage/enabled": "",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "",
  });
  assert.deepEqual([sysctl("a.b"), sysctlsReadOnly, clock], [undefined, false, { current: "", available: [""] }]);
  assert.deepEqual(
    Object.entries(others).filter(([, value]) => value !== undefined),
    [],
  );
});

test("counters, settings, pages, clock, swap", (t) => {
  const system = systemOf(t, {
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "proc/net/netstat": "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 3 7\nIpExt: X\nIpExt: 1\n",
    "proc/net/sockstat": "sockets: used 3\nTCP: inuse 1 orphan 0 tw 42 alloc 1 mem 0\n",
    "proc/net/softnet_stat": "000000ff 0000000a 0\n00000001 00000001 0\n",
    "proc/sys/net/netfilter/nf_conntrack_count": "12\n",
    "proc/self/limits":
      "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n",
    "proc/meminfo": "SwapTotal:  1000 kB\nSwapFree:  400 kB\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n",
    "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq\n",
  });
  assert.equal(system.sysctl("net.ipv4.tcp_rmem"), "4096 131072 6291456");
  assert.deepEqual(
    ["SyncookiesSent", "ListenOverflows", "ListenDrops"].map((name) => system.tcp?.(name)),
    [3, 7, undefined],
  );
  assert.deepEqual([system.timeWait, system.backlogDrops, system.tracked], [42, 11, 12]);
  assert.deepEqual([system.openFiles, system.swapUsed, system.hugePages], [["1024", "4096"], 600 * 1024, "always"]);
  assert.deepEqual(system.clock, { current: "hpet", available: ["tsc", "hpet"] });
  assert.deepEqual(system.governor, { driver: "acpi-cpufreq", name: "powersave" });
});

test("network cards: those that are no software and are up, their queues, and whether software spreads them", (t) => {
  const card = (name: string, queues: readonly string[]): Record<string, string> => ({
    [`sys/class/net/${name}/device/vendor`]: "",
    [`sys/class/net/${name}/queues/tx-0/x`]: "",
    ...Object.fromEntries(queues.map((mask, at) => [`sys/class/net/${name}/queues/rx-${at}/rps_cpus`, mask])),
  });
  const { cards } = systemOf(t, {
    ...card("eth0", ["00,00000000", "00,00000000"]),
    ...card("eth1", ["00,00000003"]),
    ...card("eth2", ["0"]),
    "sys/class/net/eth2/operstate": "down\n",
    "sys/class/net/lo/queues/rx-0/rps_cpus": "0",
  });
  assert.deepEqual(
    cards?.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    [
      { name: "eth0", receiveQueues: 2, spread: false },
      { name: "eth1", receiveQueues: 1, spread: true },
    ],
  );
});

test("CPU time: the tightest group around the process, in both versions of cgroups", (t) => {
  const stat = "nr_periods 100\nnr_throttled 5\n";
  const v2 = systemOf(t, {
    "proc/self/cgroup": "0::/a/b\n",
    "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/a/cpu.stat": stat,
    "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
    "sys/fs/cgroup/a/b/cpu.stat": "nr_periods 0\nnr_throttled 0\n",
  });
  assert.deepEqual(v2.cpuGroup, { quota: 1.5, periods: 100, throttled: 5 });
  const v1 = systemOf(t, {
    "proc/self/cgroup": "2:cpu,cpuacct:/a\n1:memory:/m\n0::/\n",
    "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/a/cpu.stat": stat,
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.stat": "nr_periods 0\n",
  });
  assert.deepEqual(v1.cpuGroup, { quota: 0.5, periods: 100, throttled: 5 });
});

test("containers, and settings that are read-only there", (t) => {
  assert.equal(systemOf(t, { ".dockerenv": "" }).container, "docker");
  assert.equal(systemOf(t, {}, { KUBERNETES_SERVICE_HOST: "10.0.0.1" }).container, "kubernetes");
  assert.equal(systemOf(t, { ".dockerenv": "" }, { AWS_EXECUTION_ENV: "AWS_ECS_FARGATE" }).container, "fargate");
  assert.equal(systemOf(t, {}, { container: "lxc" }).container, "other");
  const mounts = (options: string): string =>
    `22 1 0:21 / /proc rw - proc proc rw\n30 22 0:21 /sys /proc/sys ${options} - proc proc rw\n`;
  assert.equal(systemOf(t, { "proc/self/mountinfo": mounts("ro,nosuid") }).sysctlsReadOnly, true);
  assert.equal(systemOf(t, { "proc/self/mountinfo": mounts("rw,relatime") }).sysctlsReadOnly, false);
});

test("this machine can be read", () => {
  const system = readSystem();
  assert.match(system.sysctl("net.core.somaxconn") ?? "", /^\d+$/);
  assert.ok((system.tcp?.("ListenOverflows") ?? -1) >= 0);
  assert.ok((system.timeWait ?? -1) >= 0);
});
