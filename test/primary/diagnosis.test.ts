import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import type { Config } from "#src/config/config.js";
import { loadConfig } from "#src/config/load.js";
import { diagnose, type Finding } from "#src/primary/diagnosis.js";
import { groupMemory, type Machine, readMachine } from "#src/primary/machine.js";

const MiB = 1024 ** 2;
const GiB = 1024 * MiB;

/** A machine on which everything fits. */
const AMPLE: Machine = {
  kernel: "6.1.0-18-amd64",
  cpus: 16,
  descriptors: 1 << 20,
  descriptorsAllowed: 1 << 20,
  files: 1 << 24,
  somaxconn: 65_535,
  synBacklog: 65_535,
  localPorts: [32_768, 60_999],
  reservedPorts: "",
  tcpMemory: [GiB, 2 * GiB, 4 * GiB],
  receiveBuffer: { least: 4_096, most: 8_192, mostAsked: 1 << 20 },
  sendBuffer: { least: 4_096, most: 8_192, mostAsked: 1 << 20 },
  trackedConnections: undefined,
  networkAdmin: false,
  memory: 64 * GiB,
  pageBytes: 4_096,
};

const config: Config = { ...loadConfig({ env: {}, flags: { workers: "4" }, cwd: "/" }), connections: 100_000 };

function found(machine: Partial<Machine>, of: Partial<Config> = {}): Finding[] {
  return diagnose({ ...config, ...of }, { ...AMPLE, ...machine });
}

function only(findings: readonly Finding[]): Finding {
  assert.equal(findings.length, 1, JSON.stringify(findings));
  return findings[0] as Finding;
}

test("where everything fits there is nothing to say", () => {
  assert.deepEqual(found({}), []);
});

test("descriptors: both figures, and the command that raises the limit", () => {
  const finding = only(found({ descriptors: 20_000 }));
  assert.equal(finding.severity, "problem");
  assert.match(finding.message, /100,000 over 4 workers needs 31,514 descriptors in each; RLIMIT_NOFILE is 20,000/);
  assert.match(finding.repair, /^ulimit -n 32768 .*LimitNOFILE=32768/);
  assert.match(
    only(found({ descriptors: 20_000, descriptorsAllowed: 30_000 })).repair,
    /^sysctl -w fs\.nr_open=32768 && /,
  );
});

test("one worker has all connections, many have their share and a quarter more", () => {
  const one = { workers: 1, connections: 10_000 };
  assert.deepEqual(found({ descriptors: 10_258 }, one), []);
  assert.equal(found({ descriptors: 10_257 }, one).length, 1);
});

test("open files of the machine, tracked connections, an old kernel", () => {
  assert.match(only(found({ files: 100_000 })).repair, /^sysctl -w fs\.file-max=131072$/);
  assert.match(only(found({ trackedConnections: 65_536 })).repair, /nf_conntrack_max=262144$/);
  assert.match(only(found({ kernel: "4.19.0" })).message, /older than 5\.4/);
});

test("memory: the kernel's buffers and the workers'", () => {
  const short = only(found({ tcpMemory: [1, 500 * MiB, 2 * GiB] }));
  assert.match(short.message, /take 782 MiB at least; .* from 500 MiB on/);
  assert.equal(short.repair, 'sysctl -w net.ipv4.tcp_mem="200000 300000 400000"');
  // It is written in pages, whatever their size.
  assert.match(only(found({ tcpMemory: [1, 500 * MiB, 2 * GiB], pageBytes: 65_536 })).repair, /="12500 18750 25000"/);
  const finding = only(found({ memory: 2 * GiB }));
  assert.match(finding.message, /there are 2,048 MiB/);
  assert.match(finding.repair, /bufferMemory: 139MiB/);
  assert.match(only(found({ memory: GiB })).repair, /^fewer workers or connections/);
});

test("memory at worst: the kernel's buffers as they grow, or as they are configured", () => {
  const grown = { least: 4_096, most: 6 * MiB, mostAsked: 64 * 1024 };
  const hint = only(found({ receiveBuffer: grown }));
  assert.equal(hint.severity, "hint");
  assert.match(hint.message, /may grow to 600,782 MiB; at 4,096 MiB TCP drops/);
  assert.match(hint.repair, /receiveBuffer: 5KiB, sendBuffer: 5KiB/);
  const asking = (receiveBuffer: number, sendBuffer: number): Partial<Config> => ({
    listeners: config.listeners.map((listener) => ({
      ...listener,
      socket: { ...listener.socket, receiveBuffer, sendBuffer },
    })),
  });
  const both = { receiveBuffer: grown, sendBuffer: grown };
  assert.deepEqual(found(both, asking(5 * 1024, 5 * 1024)), []);
  // The kernel doubles what one asks for, up to what one may ask for.
  const problem = only(found(both, asking(8 * 1024, 8 * 1024)));
  assert.equal(problem.severity, "problem");
  assert.match(problem.message, /take 3,125 MiB at least/);
  assert.match(only(found(both, asking(MiB, MiB))).message, /take 25,000 MiB at least/);
});

test("memory: threads of pools, where services may have some", () => {
  const serving = (service: Config["listeners"][number]["service"]): Partial<Config> => ({
    listeners: config.listeners.map((listener) => ({ ...listener, service })),
    connections: 1_000,
    bufferMemory: 100 * MiB,
  });
  const memory = { memory: 750 * MiB };
  assert.deepEqual(found(memory, serving({ kind: "builtin", name: "echo-frame" })), []);
  assert.match(
    only(found(memory, serving({ kind: "builtin", name: "hash-frame" }))).message,
    /bufferMemory 100 MiB, 4 pool threads each, and 1,000 connections .* may take 892 MiB/,
  );
  const module = { kind: "module", path: "/game.js", given: "game.js" } as const;
  assert.match(only(found(memory, { ...serving(module), tasks: { threads: 1 } })).message, /1 pool thread each/);
});

test("what one connection may hold unsent, beside what all may", () => {
  assert.deepEqual(found({}, { bufferMemory: 11 * MiB }), []);
  const hint = only(found({}, { bufferMemory: 10 * MiB }));
  assert.match(hint.message, /limits.buffered 8 MiB is out of reach: .* limits.bufferMemory 10 MiB/);
  assert.match(hint.repair, /bufferMemory: 16MiB/);
});

test("a control group holds what is in it, however deep", () => {
  const limits: Record<string, number> = { "/a": 500, "/a/b/c": 900 };
  const at = (group: string): number => groupMemory(group, (path) => limits[path]);
  assert.deepEqual(["/a/b/c", "/a/b", "/a", "/b", "/"].map(at), [500, 500, 500, Infinity, Infinity]);
  limits["/"] = 100;
  assert.deepEqual(
    ["/a/b/c", "/"].map((group) => groupMemory(group, (path) => limits[path || "/"])),
    [100, 100],
  );
});

test("hints come after problems: clamped queues, a port that others may take, more workers than CPUs", () => {
  const listeners = config.listeners.map((listener) => ({
    ...listener,
    address: { ...listener.address, port: 40_000 },
  }));
  const findings = found(
    { somaxconn: 4_096, synBacklog: 1_024, cpus: 2, descriptors: 100 },
    { listeners: listeners.slice(0, 1) },
  );
  assert.deepEqual(
    findings.map(({ severity }) => severity),
    ["problem", "hint", "hint", "hint", "hint"],
  );
  const repairs = findings.map(({ repair }) => repair).join("\n");
  assert.match(repairs, /net\.core\.somaxconn=65535/);
  assert.match(repairs, /tcp_max_syn_backlog=4096/);
  assert.match(repairs, /ip_local_reserved_ports=40000/);
  assert.match(repairs, /workers: auto/);
  assert.deepEqual(found({ reservedPorts: "8080,39999-40001" }, { listeners: listeners.slice(0, 1) }), []);
});

/** The first listener, for datagrams. */
function datagrams(receiveBuffer: number | "off" = "off"): Pick<Config, "listeners"> {
  const listeners = config.listeners.slice(0, 1).map((listener) => ({
    ...listener,
    name: "game",
    address: { ...listener.address, protocol: "udp" as const },
    service: { kind: "builtin", name: "echo-udp" } as const,
    socket: { ...listener.socket, receiveBuffer },
  }));
  return { listeners };
}

test("a UDP receive buffer that the kernel clamps, unless the server may have more", () => {
  const clamped = { least: 4_096, most: 8_192, mostAsked: 212_992 };
  const hint = only(found({ receiveBuffer: clamped }, datagrams()));
  assert.equal(hint.severity, "hint");
  assert.match(hint.message, /"game" gets a receive buffer of 208 KiB in place of 4,096 KiB \(net\.core\.rmem_max\)/);
  assert.equal(hint.repair, "sysctl -w net.core.rmem_max=4194304");
  assert.match(only(found({ receiveBuffer: clamped }, datagrams(8 * MiB))).repair, /rmem_max=8388608$/);
  assert.deepEqual(found({ receiveBuffer: clamped }, datagrams(100 * 1024)), []);
  assert.deepEqual(found({ receiveBuffer: clamped, networkAdmin: true }, datagrams()), []);
  assert.deepEqual(found({ receiveBuffer: { ...clamped, mostAsked: 4 * MiB } }, datagrams()), []);
  assert.deepEqual(found({ receiveBuffer: clamped }), []);
});

test("a listener for datagrams has no connections, whose queue or buffers could be too much", () => {
  const wide = { ...AMPLE.receiveBuffer, least: 4_096, most: 8_192, mostAsked: GiB };
  assert.deepEqual(found({ receiveBuffer: wide, somaxconn: 128 }, datagrams(512 * MiB)), []);
});

test("what cannot be read is not judged", () => {
  const unknown = { descriptors: undefined, files: undefined, somaxconn: undefined, tcpMemory: undefined };
  assert.deepEqual(found({ ...unknown, receiveBuffer: undefined, localPorts: undefined }), []);
  assert.deepEqual(found({ ...unknown, sendBuffer: undefined }), []);
});

test("this machine can be read", () => {
  const machine = readMachine();
  assert.match(machine.kernel, /^\d+\.\d+/);
  assert.ok((machine.descriptors ?? 0) > 0);
  assert.ok(machine.memory > 0);
  assert.equal(machine.pageBytes, Number(execFileSync("getconf", ["PAGESIZE"], { encoding: "utf8" })));
  assert.ok((machine.receiveBuffer?.most ?? 0) > (machine.receiveBuffer?.least ?? 0));
});
