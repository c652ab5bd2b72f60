import assert from "node:assert/strict";
import { test } from "node:test";
import type { Config } from "#src/config/config.js";
import { loadConfig } from "#src/config/load.js";
import { diagnose, type Finding } from "#src/primary/diagnosis.js";
import { type Machine, readMachine } from "#src/primary/machine.js";

const GiB = 1024 ** 3;

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
  leastBuffers: [4_096, 4_096],
  trackedConnections: undefined,
  memory: 64 * GiB,
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
  assert.match(only(found({ tcpMemory: [1, 500 * 1024 ** 2, GiB] })).message, /take 782 MiB; .* from 500 MiB on/);
  const finding = only(found({ memory: GiB }));
  assert.match(finding.message, /there are 1,024 MiB/);
  assert.match(finding.repair, /bufferMemory: 78MiB/);
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

test("what cannot be read is not judged", () => {
  const unknown = { descriptors: undefined, files: undefined, somaxconn: undefined, tcpMemory: undefined };
  assert.deepEqual(found({ ...unknown, leastBuffers: undefined, localPorts: undefined }), []);
});

test("this machine can be read", () => {
  const machine = readMachine();
  assert.match(machine.kernel, /^\d+\.\d+/);
  assert.ok((machine.descriptors ?? 0) > 0);
  assert.ok(machine.memory > 0);
});
