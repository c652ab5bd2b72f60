/**
 * The addons under AddressSanitizer and UndefinedBehaviorSanitizer: built into a copy of the package, whose own tests
 * then run with it. What counts here are reports; whether the tests pass is the default run's business.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { type TestContext, test } from "node:test";
import { packageRoot } from "#src/os/addon.js";
import { makeFolder } from "../support/folder.js";

const FLAGS = "-std=c11 -g -O1 -Wall -Wextra -Werror -D_GNU_SOURCE -DNAPI_VERSION=8 -shared -fPIC -fvisibility=hidden";
const SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer";
const SUITES = ["engine", "connection", "os", "service"];
const LEAST_TESTS = 100;

const root = packageRoot();

/** Where this Node's own headers are. */
function headers(): string {
  const version = process.version.slice(1);
  const candidates = [
    process.env.npm_config_nodedir && join(process.env.npm_config_nodedir, "include", "node"),
    join(dirname(dirname(process.execPath)), "include", "node"),
    join(homedir(), ".cache", "node-gyp", version, "include", "node"),
  ];
  const found = candidates.find((folder) => folder && existsSync(join(folder, "node_api.h")));
  assert.ok(found, `no Node headers in any of ${candidates.join(", ")}`);
  return found;
}

/** Compiles the sources in `folder` for the sanitizers, into what node-gyp would have built there. */
function compile(folder: string, name: string): void {
  const units = readdirSync(folder).filter((file) => file.endsWith(".c"));
  const release = join(folder, "build", "Release");
  mkdirSync(release, { recursive: true });
  const args = [...`${FLAGS} ${SANITIZERS}`.split(" "), `-I${headers()}`, ...units.map((unit) => join(folder, unit))];
  const built = spawnSync("cc", [...args, "-o", join(release, `${name}.node`)], { encoding: "utf8" });
  assert.equal(built.status, 0, built.stderr);
}

/** The package again, with links to what is large, and its addons built for the sanitizers. */
function sanitizedPackage(
  t: TestContext,
  plant?: { readonly file: string; readonly text: string; readonly by: string },
): string {
  const copy = makeFolder(t);
  for (const name of ["package.json", "dist", "test"]) cpSync(join(root, name), join(copy, name), { recursive: true });
  cpSync(join(root, "build", "test"), join(copy, "build", "test"), { recursive: true });
  const native = join(copy, "native");
  const isSource = (path: string): boolean => !path.includes("build") && (!/\.\w+$/.test(path) || /\.[ch]$/.test(path));
  cpSync(join(root, "native"), native, { recursive: true, filter: (path) => isSource(relative(root, path)) });
  if (plant) {
    const path = join(native, plant.file);
    const code = readFileSync(path, "utf8");
    assert.ok(code.includes(plant.text), plant.text);
    writeFileSync(path, code.replace(plant.text, plant.by));
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  compile(native, "headrace");
  compile(join(native, "tls"), "headrace_tls");
  return copy;
}

function library(name: string): string {
  return spawnSync("cc", [`-print-file-name=${name}`], { encoding: "utf8" }).stdout.trim();
}

/** Every report that any process of a run wrote. */
function reportsIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith("report"))
    .map((name) => readFileSync(join(folder, name), "utf8"));
}

function sanitized(copy: string, args: readonly string[]): { readonly stdout: string; readonly reports: string[] } {
  const logs = join(copy, "logs");
  mkdirSync(logs, { recursive: true });
  const log = `log_path=${join(logs, "report")}:log_exe_name=1`;
  const ran = spawnSync(process.execPath, args, {
    cwd: copy,
    encoding: "utf8",
    maxBuffer: 64 << 20,
    env: {
      ...process.env,
      NODE_TEST_CONTEXT: undefined,
      LD_PRELOAD: library("libasan.so"),
      // Node frees little at exit. It sets a SIGSEGV handler of its own, which would hide crashes: 2 forbids that.
      ASAN_OPTIONS: `detect_leaks=0:handle_segv=2:handle_sigbus=2:${log}`,
      UBSAN_OPTIONS: "halt_on_error=1:print_stacktrace=1",
    },
  });
  const stdout = `${ran.stdout}${ran.stderr}`;
  // GCC's UBSan ignores log_path and writes to stderr, which the test runner passes on.
  const undefinedBehavior = stdout.split("\n").filter((text) => text.includes("runtime error:"));
  return { stdout, reports: [...reportsIn(logs), ...undefinedBehavior] };
}

test("the tests of the addons cause no report", (t) => {
  const copy = sanitizedPackage(t);
  const files = SUITES.flatMap((suite) =>
    readdirSync(join(copy, "build", "test", suite))
      .filter((name) => name.endsWith(".test.js"))
      .map((name) => join("build", "test", suite, name)),
  );
  const { stdout, reports } = sanitized(copy, ["--test", "--test-concurrency=2", "--test-reporter=tap", ...files]);
  assert.deepEqual(reports, []);
  const ran = Number(/^# tests (\d+)$/m.exec(stdout)?.[1] ?? 0);
  assert.ok(ran >= LEAST_TESTS, `${ran} tests ran:\n${stdout.slice(-4_000)}`);
  t.diagnostic(`${ran} tests`);
});

/** The line of engine_close from which on the faults are planted. */
const CLOSING = "\n  close(self->epoll_fd);\n";

for (const [what, fault] of Object.entries({
  "heap-use-after-free": "free(self->next_send); self->next_send[0] = 1;",
  "SEGV on unknown address": "self->slots = NULL; self->slots[1].fd = 1;",
  "shift exponent": "self->used = 1 << (self->memory.slots + 60);",
})) {
  test(`planted in the addon and reported: ${what}`, (t) => {
    const copy = sanitizedPackage(t, { file: "engine.c", text: CLOSING, by: `${CLOSING}  ${fault}\n` });
    const source = `
      import { Engine } from ${JSON.stringify(join(copy, "dist", "engine", "engine.js"))};
      new Engine({ slots: 16 }).shutdown();
    `;
    const { reports } = sanitized(copy, ["--input-type=module", "--eval", source]);
    assert.match(reports.join("\n"), new RegExp(what));
  });
}

test("planted in the TLS addon and reported: heap-buffer-overflow", (t) => {
  const copy = sanitizedPackage(t, {
    file: join("tls", "context.c"),
    text: "self->alpn = malloc(length)",
    by: "self->alpn = malloc(length - 1)",
  });
  const source = `
    import { tlsAddon } from ${JSON.stringify(join(copy, "dist", "os", "tls-addon.js"))};
    const options = { side: "client", certificates: [], verify: "none", alpn: ["rpc/1"], minVersion: "TLSv1.2" };
    tlsAddon().context({ ...options, sessionIdContext: "" });
  `;
  const { reports } = sanitized(copy, ["--input-type=module", "--eval", source]);
  assert.match(reports.join("\n"), /heap-buffer-overflow/);
});
