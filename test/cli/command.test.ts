/** The command line as a newcomer meets it. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BUILTIN_SERVICES } from "#src/config/config.js";
import { packageRoot } from "#src/os/addon.js";
import { headrace } from "../support/command.js";
import { makeFolder, writeService } from "../support/folder.js";

const COMMANDS = [
  "run",
  "check",
  "status",
  "reload",
  "upgrade",
  "scale",
  "drain",
  "stop",
  "bench",
  "doctor",
  "completion",
];

test("--help names every command, with examples, and needs no addon", async () => {
  const { code, stdout, stderr } = await headrace(["--help"], { env: { NODE_DEBUG: "module" } });
  assert.equal(code, 0);
  for (const command of COMMANDS) assert.match(stdout, new RegExp(`^  ${command}\\b`, "m"));
  assert.match(stdout, /\$ headrace run/);
  assert.ok(!stderr.includes("headrace.node"), "the addon was loaded");
});

test("each command has help of its own", async () => {
  for (const command of COMMANDS) {
    const { code, stdout } = await headrace([command, "--help"]);
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`^Usage: headrace ${command}`));
  }
});

test("--version is the package's", async () => {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8"));
  assert.equal((await headrace(["--version"])).stdout, `${version}\n`);
});

for (const [what, args, says] of [
  ["an unknown command", ["serve"], /^headrace: unknown command 'serve'; see headrace --help\n$/],
  [
    "a mistyped command",
    ["stauts"],
    /^headrace: unknown command 'stauts' \(Did you mean status\?\); see headrace --help\n$/,
  ],
  [
    "an unknown option",
    ["status", "--jsno"],
    /^headrace: unknown option '--jsno' \(Did you mean --json\?\); see headrace --help\n$/,
  ],
  [
    "a missing value",
    ["run", "--config"],
    /^headrace: option '-c, --config <file>' argument missing; see headrace --help\n$/,
  ],
] as const) {
  test(`${what} is one line and exit code 2`, async () => {
    const { code, stdout, stderr } = await headrace(args);
    assert.deepEqual([code, stdout], [2, ""]);
    assert.match(stderr, says);
  });
}

test("no command at all shows the help, and is an error", async () => {
  const { code, stderr } = await headrace([]);
  assert.equal(code, 2);
  assert.match(stderr, /^Usage: headrace/);
});

test("check prints the configuration as it would be used, in a form that can be used", async (t) => {
  const cwd = makeFolder(t);
  writeService(cwd, 'export default defineService({ codec: line(), timeouts: { idle: "90s" }, onMessage: (x) => x });');
  const first = await headrace(["check", "./service.mjs", "--listen", "[::1]:7000", "--workers", "3"], { cwd });
  assert.equal(first.code, 0, first.stderr);
  assert.match(first.stdout, /^# built-in defaults: valid\nworkers: 3\n/);
  assert.match(first.stdout, /address: "\[::1\]:7000"\n/);
  assert.match(first.stdout, /idle: 90s\n/);
  assert.match(
    first.stdout,
    /\n {2}drain: 30s\n {2}hang: 10s\n {2}prove: 5s\ndrain:\n {2}tls: 30s\nmigration:\n {2}enabled: true\n {2}rebalance: true\n/,
  );
  writeFileSync(join(cwd, "headrace.yaml"), first.stdout);
  const second = await headrace(["check"], { cwd });
  assert.equal(second.code, 0, second.stderr);
  assert.equal(second.stdout, first.stdout.replace("built-in defaults", "headrace.yaml"));
});

test("check reports every fault of a file, one line each", async (t) => {
  const cwd = makeFolder(t);
  writeFileSync(join(cwd, "headrace.yaml"), "workers: many\ntimeouts: { idle: 5 }\n");
  const { code, stdout, stderr } = await headrace(["check"], { cwd });
  assert.deepEqual([code, stdout], [2, ""]);
  assert.match(stderr, /^headrace: headrace\.yaml:1: workers: .*\nheadrace: headrace\.yaml:2: timeouts\.idle: .*\n$/);
});

test("check finds a service that does not load", async (t) => {
  const cwd = makeFolder(t);
  writeService(cwd, 'throw new Error("no database");');
  const { code, stderr } = await headrace(["check", "./service.mjs"], { cwd });
  assert.equal(code, 1);
  assert.match(stderr, /^headrace: service \.\/service\.mjs: threw .* no database\n$/);
});

test("check prints the schema and the table of options", async () => {
  const schema = JSON.parse((await headrace(["check", "--json-schema"])).stdout);
  assert.equal(schema.type, "object");
  assert.match((await headrace(["check", "--reference"])).stdout, /^\| Option \|/);
});

test("every built-in service is in the help of what takes one, and in the README", async () => {
  const readme = readFileSync(join(packageRoot(), "README.md"), "utf8");
  const helps = await Promise.all(["run", "check", "doctor"].map((command) => headrace([command, "--help"])));
  for (const name of BUILTIN_SERVICES) {
    for (const { stdout } of helps) assert.ok(stdout.includes(name), `${name}: ${stdout}`);
    assert.ok(/`service` is [\s\S]*?Exit codes/.exec(readme)?.[0].includes(`\`${name}\``), name);
  }
});
