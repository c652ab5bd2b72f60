/** `headrace doctor`, and what a start says of the same: for a machine made small by limits of its own. */
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { headrace, type Outcome } from "../support/command.js";
import { makeFolder } from "../support/folder.js";
import type { LogLine } from "../support/server.js";
import { until } from "../support/until.js";

/** Nothing that a machine of today could lack, but for hints. */
const MODEST = `workers: 1
listeners: [{ address: "127.0.0.1:0", service: echo-line }]
limits: { connections: 100, bufferMemory: 16MiB }
`;
/** Fewer than a worker needs for that. */
const FEW_DESCRIPTORS = 300;

function folderWith(t: TestContext, yaml: string): string {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "headrace.yaml"), yaml);
  return folder;
}

/** As in a shell that may open so many files. */
function spawnWith(
  descriptors: number,
  cwd: string,
  args: readonly string[],
): ChildProcessByStdio<null, Readable, Readable> {
  const main = fileURLToPath(import.meta.resolve("#src/cli/main.js"));
  const command = [`--nofile=${descriptors}:${descriptors}`, process.execPath, main, ...args];
  return spawn("prlimit", command, { cwd, stdio: ["ignore", "pipe", "pipe"] });
}

async function doctorWith(descriptors: number, cwd: string, ...args: string[]): Promise<Outcome> {
  const child = spawnWith(descriptors, cwd, ["doctor", ...args]);
  const [[code], stdout, stderr] = await Promise.all([once(child, "exit"), text(child.stdout), text(child.stderr)]);
  return { code, stdout, stderr };
}

/** The log of a start, until it serves. */
async function startWith(t: TestContext, descriptors: number, cwd: string): Promise<LogLine[]> {
  const child = spawnWith(descriptors, cwd, ["run", "--control", join(cwd, "control.sock")]);
  t.after(() => child.kill("SIGKILL"));
  const lines: LogLine[] = [];
  const log = createInterface(child.stdout);
  log.on("line", (line) => lines.push(JSON.parse(line)));
  await until("it serves", () => lines.find(({ msg }) => msg === "ready"));
  const ended = once(child, "exit");
  child.kill();
  await ended;
  return lines;
}

test("doctor: what fits is no problem, and exits 0", async (t) => {
  const { code, stdout, stderr } = await headrace(["doctor"], { cwd: folderWith(t, MODEST) });
  assert.equal(code, 0, stdout + stderr);
  assert.doesNotMatch(stdout, /^problem:/m);
});

test("doctor: what cannot hold comes first, each with what repairs it, and exits 1", async (t) => {
  const { code, stdout, stderr } = await doctorWith(FEW_DESCRIPTORS, folderWith(t, MODEST));
  assert.equal(code, 1, stderr);
  assert.match(stdout, /^problem: .*needs 357 descriptors in each; RLIMIT_NOFILE is 300\n {2}ulimit -n 512 /m);
  assert.match(stderr, /^headrace: \d+ of \d+ findings cannot hold on this machine\n$/);
  const severities = stdout.split("\n").flatMap((line) => /^(problem|hint):/.exec(line)?.[1] ?? []);
  assert.deepEqual(severities, severities.toSorted().reverse());
});

test("doctor --json: the same for programs", async (t) => {
  const { code, stdout } = await doctorWith(FEW_DESCRIPTORS, folderWith(t, MODEST), "--json");
  assert.equal(code, 1);
  const { findings } = JSON.parse(stdout) as { findings: { severity: string; message: string; repair: string }[] };
  const descriptors = findings.find(({ message }) => message.includes("RLIMIT_NOFILE"));
  assert.equal(descriptors?.severity, "problem");
  assert.match(descriptors?.repair ?? "", /ulimit -n \d+/);
  const modest = await headrace(["doctor", "--json"], { cwd: folderWith(t, MODEST) });
  const { findings: hints } = JSON.parse(modest.stdout) as { findings: { severity: string }[] };
  assert.deepEqual([modest.code, hints.filter(({ severity }) => severity === "problem")], [0, []]);
});

test("doctor: a table comes before the findings, what is fine or unknown after them, in short", async (t) => {
  const { stdout } = await doctorWith(FEW_DESCRIPTORS, folderWith(t, MODEST));
  assert.match(stdout, /^check +found +wanted +severity\nopen files of a worker +300 +357 +problem\n/);
  assert.match(stdout, /\n\nfine: kernel \d+\.\d+/);
  const { stdout: json } = await doctorWith(FEW_DESCRIPTORS, folderWith(t, MODEST), "--json");
  const { findings, facts } = JSON.parse(json) as Record<string, { check: string; severity: string }[]>;
  assert.ok(facts?.some(({ check, severity }) => check === "kernel" && severity === "ok"));
  const checks = [...(findings ?? []), ...(facts ?? [])].map(({ check }) => check);
  assert.deepEqual(checks, [...new Set(checks)], "each check has one outcome");
});

test("doctor judges by the limits of the shell it runs in; what it says repairs it", async (t) => {
  const cwd = folderWith(t, MODEST);
  const { code, stdout } = await doctorWith(FEW_DESCRIPTORS, cwd);
  assert.equal(code, 1, stdout);
  const [, wanted] = /ulimit -n (\d+)/.exec(stdout) ?? [];
  const repaired = await doctorWith(Number(wanted), cwd);
  assert.equal(repaired.code, 0, repaired.stdout);
});

test("doctor: a configuration that is wrong in itself is refused as everywhere", async (t) => {
  const { code, stderr } = await headrace(["doctor"], { cwd: folderWith(t, "workers: none") });
  assert.equal(code, 2);
  assert.match(stderr, /headrace\.yaml:1: workers: /);
});

test("a start warns of what cannot hold, one line each, with what repairs it, and of nothing else", async (t) => {
  const cwd = folderWith(t, MODEST);
  const warnings = (await startWith(t, FEW_DESCRIPTORS, cwd)).filter(({ repair }) => repair !== undefined);
  const { stdout } = await doctorWith(FEW_DESCRIPTORS, cwd);
  const problems = stdout.split("\n").flatMap((line) => /^problem: (.*)/.exec(line)?.[1] ?? []);
  assert.deepEqual(
    warnings.map(({ level, msg }) => [level, msg]),
    problems.map((message) => [40, message]),
  );
  assert.match(String(warnings[0]?.repair), /^ulimit -n 512 /);
  assert.deepEqual(
    (await startWith(t, 1_024, cwd)).filter(({ repair }) => repair !== undefined),
    [],
  );
});
