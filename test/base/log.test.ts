/** The log of a process: seen from outside, because its end matters most. */
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { LogStream } from "#src/base/log-stream.js";
import { makeFolder } from "../support/folder.js";
import { until, within } from "../support/until.js";

/** Runs `body` with `log` and `closeLog` in scope. */
function run(t: TestContext, body: string): ChildProcessByStdio<null, Readable, null> {
  const library = JSON.stringify(import.meta.resolve("#src/base/log.js"));
  const head = `import { createLogger, closeLog } from ${library}; const log = createLogger({ level: "info", worker: 3 });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", head + body], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

function messages(output: string): string[] {
  return output
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).msg);
}

const MANY = 'for (let i = 0; i < 5000; i++) log.info("line " + i);';
const EXPECTED = Array.from({ length: 5000 }, (_, index) => `line ${index}`);

test("a line is a JSON object with level, time, pid and worker", async (t) => {
  const child = run(t, 'log.warn({ listener: "lines" }, "hello");');
  const { time, ...line } = JSON.parse(await text(child.stdout));
  assert.ok(Math.abs(Date.now() - time) < 60_000);
  assert.deepEqual(line, { level: 40, pid: child.pid, worker: 3, listener: "lines", msg: "hello" });
});

for (const [what, end] of [
  ["its event loop runs empty", ""],
  ["it closes the log and exits", "await closeLog(log); process.exit(0);"],
  ["it exits at once", "process.exit(0);"],
  ["it exits while a write is on its way", "setImmediate(() => process.exit(0));"],
  ["it throws", 'process.on("uncaughtException", () => process.exit(0)); throw new Error("a bug");'],
] as const) {
  test(`no line is lost when ${what}`, async (t) => {
    assert.deepEqual(messages(await text(run(t, MANY + end).stdout)).sort(), EXPECTED.toSorted());
  });
}

test("lines come in order", async (t) => {
  assert.deepEqual(messages(await text(run(t, MANY).stdout)), EXPECTED);
});

for (const [what, end] of [
  ["exits at once", "process.exit(7);"],
  ["closes the log first", "closeLog(log).then(() => process.exit(7));"],
  ["goes on for a while", "setTimeout(() => process.exit(7), 50);"],
] as const) {
  test(`a process whose reader has gone ends when it ${what}`, async (t) => {
    const child = run(t, `log.info("up"); setTimeout(() => { ${MANY} ${end} }, 50);`);
    await once(child.stdout, "data");
    child.stdout.destroy();
    const [code] = await within("the process ends", once(child, "exit"));
    assert.equal(code, 7);
  });
}

test("what nobody reads is dropped past a bound, and counted", async (t) => {
  const body = `
    const line = "x".repeat(1000);
    for (let i = 0; i < 20_000; i++) log.info(line);
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 100_000; i++) log.info(line);
    const grown = process.memoryUsage().rss - before;
    process.send({ grown });
    setTimeout(() => { log.info("last"); process.disconnect(); }, 200);`;
  const library = JSON.stringify(import.meta.resolve("#src/base/log.js"));
  const head = `import { createLogger } from ${library}; const log = createLogger({ level: "info" });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", head + body], {
    stdio: ["ignore", "pipe", "inherit", "ipc"],
  });
  t.after(() => child.kill("SIGKILL"));
  const [{ grown }] = (await once(child, "message")) as [{ grown: number }];
  assert.ok(grown < 64 * 1024 * 1024, `grew by ${grown} bytes`);
  const lines: string[] = [];
  assert.ok(child.stdout);
  for await (const line of createInterface(child.stdout)) lines.push(JSON.parse(line).msg);
  assert.ok(lines.length < 10_000, `${lines.length} lines`);
  assert.match(lines.find((line) => line.includes("dropped")) ?? "", /^\d{5,6} log lines were dropped/);
  assert.equal(lines.at(-1), "last");
});

test("readable lines that nobody reads hold nothing up, and are there when somebody does", async (t) => {
  const body = `for (let i = 0; i < 20_000; i++) log.info("line " + i); process.send("alive"); process.disconnect();`;
  const library = JSON.stringify(import.meta.resolve("#src/base/log.js"));
  const head = `import { createLogger } from ${library}; const log = createLogger({ level: "info", worker: 3, pretty: true });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", head + body], {
    stdio: ["ignore", "pipe", "inherit", "ipc"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  t.after(() => child.kill("SIGKILL"));
  assert.ok(child.stdout);
  await within("it goes on", once(child, "message"));
  const lines = (await text(child.stdout)).trimEnd().split("\n");
  assert.match(lines[0] ?? "", /^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: worker 3: line 0$/);
  assert.match(lines.at(-1) ?? "", /worker 3: line 19999$/);
});

test("what goes from the journal to a file has no priorities any more", (t) => {
  const folder = makeFolder(t);
  const [journal, file] = [join(folder, "journal"), join(folder, "file")];
  const stream = new LogStream(openSync(journal, "w"), { journal: true, owned: true });
  t.after(() => stream.close());
  const line = (msg: string): string => `${JSON.stringify({ level: 30, msg })}\n`;
  stream.write(line("one"));
  // Still waits: the first is being written.
  stream.write(line("two"));
  stream.moveTo(openSync(file, "w"));
  stream.write(line("three"));
  return until("all is written", () => readFileSync(file, "utf8") === line("two") + line("three")).then(() => {
    assert.equal(readFileSync(journal, "utf8"), `<6>${line("one")}`);
  });
});
