/** Bad input: one error that names what is wrong, the right exit code, and no process left behind. */
import assert from "node:assert/strict";
import { chmodSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer } from "../support/server.js";

interface Case {
  readonly what: string;
  readonly args: readonly string[];
  readonly code: 1 | 2;
  readonly stderr: RegExp;
  /** Text of headrace.yaml. */
  readonly yaml?: string;
  /** Body of service.mjs. */
  readonly service?: string;
}

const CASES: readonly Case[] = [
  { what: "an unknown option", args: ["--wrkers", "2"], code: 2, stderr: /unknown option '--wrkers'.*--workers/ },
  { what: "too many arguments", args: ["echo-line", "echo-raw"], code: 2, stderr: /too many arguments/ },
  { what: "a file that does not exist", args: ["--config", "no.yaml"], code: 2, stderr: /no\.yaml/ },
  { what: "a file that is a folder", args: ["--config", "."], code: 2, stderr: /\./ },
  { what: "a wrong type", args: [], yaml: "workers: many\n", code: 2, stderr: /headrace\.yaml:1: workers: .*allowed/ },
  {
    what: "a wrong unit",
    args: [],
    yaml: "timeouts:\n  idle: 10 parsecs\n",
    code: 2,
    stderr: /headrace\.yaml:2: .*idle/,
  },
  { what: "a wrong number of workers", args: ["-w", "0"], code: 2, stderr: /--workers: .*allowed/ },
  { what: "not an address", args: ["-l", "9000"], code: 2, stderr: /--listen: .*allowed/ },
  {
    what: "an address of another machine",
    args: ["-l", "192.0.2.1:0"],
    code: 1,
    stderr: /192\.0\.2\.1:0 is not an address of this machine.*0\.0\.0\.0/,
  },
  { what: "an unknown built-in", args: ["echo-lines"], code: 2, stderr: /echo-lines.*echo-line/ },
  { what: "a missing module", args: ["./no.mjs"], code: 2, stderr: /service \.\/no\.mjs: the file does not exist/ },
  { what: "a folder as a module", args: ["./."], code: 2, stderr: /service \.\/\.: is not a file/ },
  {
    what: "a module that throws",
    args: ["./service.mjs"],
    service: 'throw new Error("no database");',
    code: 1,
    stderr: /service \.\/service\.mjs: threw while it was loaded \(\.\/service\.mjs:2\): no database/,
  },
  {
    what: "a module with a syntax error",
    args: ["./service.mjs"],
    service: "export default {",
    code: 2,
    stderr: /not valid JavaScript \(\.\/service\.mjs:\d\)/,
  },
  {
    what: "a module that imports nothing real",
    args: ["./service.mjs"],
    service: 'import "./nowhere.mjs";',
    code: 2,
    stderr: /imports something that does not exist.*nowhere/,
  },
  {
    what: "a module that exports nothing",
    args: ["./service.mjs"],
    service: "",
    code: 2,
    stderr: /has no default export; expected: export default defineService/,
  },
  {
    what: "a module that exports the wrong thing",
    args: ["./service.mjs"],
    service: "export default () => 1;",
    code: 2,
    stderr: /its default export is a function, not made by defineService/,
  },
  {
    what: "a service without a codec",
    args: ["./service.mjs"],
    service: "export default defineService({});",
    code: 2,
    stderr: /service \.\/service\.mjs: defineService: codec: missing/,
  },
  {
    what: "a worker that exits before it is ready",
    args: ["./service.mjs"],
    service: "process.exit(3);",
    code: 1,
    stderr: /worker \d+ exited with code 3 while loading its services/,
  },
  {
    what: "a worker that crashes before it is ready",
    args: ["./service.mjs"],
    service: 'setTimeout(() => { throw new Error("late"); }); await new Promise(() => {});',
    code: 1,
    stderr: /worker \d+ crashed: late/,
  },
  {
    what: "an environment that cannot be made",
    args: ["./service.mjs"],
    service:
      'export default defineService({ codec: line(), onMessage: (x) => x, env() { throw new Error("no redis"); } });',
    code: 1,
    stderr: /worker \d+ failed: no redis/,
  },
  {
    what: "a control socket in no folder",
    args: ["--control", "/nowhere/x.sock"],
    code: 2,
    stderr: /directory \/nowhere does not exist/,
  },
  {
    what: "a control path that is a file",
    args: ["--control", "headrace.yaml"],
    yaml: "workers: 1\n",
    code: 1,
    stderr: /headrace\.yaml exists and is not a socket/,
  },
];

for (const { what, args, code, stderr, yaml, service } of CASES) {
  test(`${what} is refused`, async (t) => {
    const cwd = makeFolder(t);
    if (yaml !== undefined) writeFileSync(join(cwd, "headrace.yaml"), yaml);
    if (service !== undefined) writeService(cwd, service);
    const listen = args.includes("-l") || yaml !== undefined ? [] : ["-l", "127.0.0.1:0"];
    const server = startServer(t, [...args, ...listen], { cwd });
    const exit = await server.exit();
    const message = await server.stderr;
    assert.match(message, stderr);
    assert.deepEqual(exit, { code, signal: null }, message);
    assert.equal(message.trimEnd().split("\n").length, 1, `more than one line:\n${message}`);
    assert.match(message, /^headrace: /);
    assert.ok(!server.lines.some(({ msg }) => msg === "ready"));
    await server.gone();
  });
}

test("what a module threw has its stack in the log", async (t) => {
  const server = startServer(t, [writeService(makeFolder(t), 'throw new Error("no database");'), "-l", "127.0.0.1:0"]);
  await server.exit();
  const logged = server.lines.find(({ err }) => err !== undefined);
  assert.ok(logged);
  assert.match((logged.err as { stack: string }).stack, /no database\n\s+at .*service\.mjs:2/);
});

test("a runtime directory that others could have filled is refused", async (t) => {
  const open = makeFolder(t);
  chmodSync(open, 0o777);
  const link = join(makeFolder(t), "link");
  symlinkSync(open, link);
  for (const [directory, problem] of [
    [open, /can be written by other users/],
    [link, /is not a directory/],
  ] as const) {
    const server = startServer(t, ["-l", "127.0.0.1:0"], { env: { RUNTIME_DIRECTORY: directory } });
    assert.equal((await server.exit()).code, 1);
    assert.match(await server.stderr, problem);
  }
});
