/** `headrace top` as it is used: on a pseudo terminal (script(1) makes one), and into a pipe. */
import assert from "node:assert/strict";
import { type ChildProcessByStdio, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openClient } from "../support/client.js";
import { headrace } from "../support/command.js";
import { makeFolder } from "../support/folder.js";
import { startServer } from "../support/server.js";
import { until, within } from "../support/until.js";

const MAIN = fileURLToPath(import.meta.resolve("#src/cli/main.js"));
const ENTER = "\u001b[?1049h";
const LEAVE = "\u001b[?25h\u001b[?1049l";

// biome-ignore lint/suspicious/noControlCharactersInRegex: escapes are what is taken out
const ESCAPES = /\u001b\[[0-9?]*[A-Za-z]/g;

interface Terminal {
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
  /** Everything that was shown so far. */
  shown(): string;
  /** The last frame, without escapes. */
  frame(): string[];
  /** Its device. */
  readonly tty: () => string;
  /** The process id of `top`. */
  readonly pid: () => number;
  /** What stty says before and after, and the exit code of `top`. */
  readonly outcome: () => Promise<{ readonly before: string; readonly after: string; readonly code: number }>;
}

/** `top` in a terminal of 100 columns and 30 rows, between two looks at the terminal's settings. */
function openTerminal(t: TestContext, control: string): Terminal {
  const folder = makeFolder(t);
  const at = (name: string): string => join(folder, name);
  const read = (name: string): string => (existsSync(at(name)) ? readFileSync(at(name), "utf8").trim() : "");
  const run = `stty cols 100 rows 30; tty > ${at("tty")}; stty -a > ${at("before")}
    "${process.execPath}" "${MAIN}" top --interval 100ms --control "${control}" & top=$!; echo $top > ${at("pid")}
    fg %1 > /dev/null; echo $? > ${at("code")}; stty -a > ${at("after")}`;
  const child = spawn("script", ["-qec", `bash -mc '${run}'`, "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  let shown = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    shown += chunk;
  });
  const ended = once(child, "exit");
  return {
    child,
    shown: () => shown,
    frame: () => {
      const frames = shown.split("\u001b[H");
      const last = frames.at(-1)?.includes("\u001b[J") ? frames.at(-1) : frames.at(-2);
      const text = (last ?? "").replaceAll(ESCAPES, "");
      return text.split("\n").map((line) => line.replaceAll("\r", ""));
    },
    tty: () => read("tty"),
    pid: () => Number(read("pid")),
    outcome: async () => {
      await within("top ends", ended);
      return { before: read("before"), after: read("after"), code: Number(read("code")) };
    },
  };
}

test("on a terminal: the screen of its own, keys, another size, and everything as before at the end", async (t) => {
  const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "2"]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  const terminal = openTerminal(t, server.control);
  const asking = setInterval(() => client.send("hello"), 5);
  t.after(() => clearInterval(asking));
  await until("it shows requests", () => terminal.frame().some((line) => /^1 open .* [1-9]\d* requests\/s/.test(line)));
  assert.ok(terminal.shown().includes(ENTER));
  const frame = terminal.frame();
  assert.match(frame[0] ?? "", /^headrace [\d.]+ {2}running {2}up \d+s {2}generation 1 {2}configuration 1$/);
  assert.match(frame[1] ?? "", /^health ok {2}2 of 2 workers accept/);
  assert.ok(frame.every((line) => line.length <= 100));
  assert.ok(frame.length <= 30);

  terminal.child.stdin.write("c");
  await until("sorted by open connections", () => terminal.frame().includes("workers by open"));
  terminal.child.stdin.write("c");
  await until("the other way round", () => terminal.frame().includes("workers by open, the other way round"));
  terminal.child.stdin.write("p");
  await until("paused", () => terminal.frame().some((line) => line.startsWith("paused: p goes on")));
  terminal.child.stdin.write("p");
  await until("it goes on", () => terminal.frame().includes("workers by open, the other way round"));

  execFileSync("stty", ["-F", terminal.tty(), "cols", "50", "rows", "8"]);
  await until("it fits", () => terminal.frame().length <= 8 && terminal.frame().every((line) => line.length <= 50));

  terminal.child.stdin.write("q");
  const { before, after, code } = await terminal.outcome();
  assert.equal(code, 0);
  assert.ok(terminal.shown().endsWith(LEAVE), "the usual screen");
  const size = /rows \d+; columns \d+;/;
  assert.equal(after.replace(size, ""), before.replace(size, ""));
});

for (const [signal, number] of [
  ["SIGTERM", 15],
  ["SIGINT", 2],
  ["SIGHUP", 1],
] as const) {
  test(`${signal} leaves the terminal as it was`, async (t) => {
    const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "1"]);
    await server.ready();
    const terminal = openTerminal(t, server.control);
    await until("it shows the server", () => terminal.frame().some((line) => line.startsWith("health ok")));
    process.kill(terminal.pid(), signal);
    const { before, after, code } = await terminal.outcome();
    assert.equal(code, 128 + number);
    assert.ok(terminal.shown().includes(LEAVE));
    assert.equal(after, before);
  });
}

test("Ctrl-C ends it, and the terminal is as it was", async (t) => {
  const terminal = openTerminal(t, join(makeFolder(t), "control.sock"));
  await until("it says so", () => terminal.frame().some((line) => line.startsWith("no headrace answers at")));
  terminal.child.stdin.write("\u0003");
  const { before, after, code } = await terminal.outcome();
  assert.equal(code, 130);
  assert.equal(after, before);
});

test("a server that goes is said, and seen again when it is back", async (t) => {
  const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "1"]);
  await server.ready();
  const terminal = openTerminal(t, server.control);
  await until("it shows the server", () => terminal.frame().some((line) => line.startsWith("health ok")));
  server.signal("SIGTERM");
  await server.exit();
  await until("it says so", () => terminal.frame().some((line) => /trying again|is the server running/.test(line)));
  assert.ok(
    terminal.frame().some((line) => line.startsWith("headrace ")),
    "what was seen last stays",
  );
  const env = { RUNTIME_DIRECTORY: server.folder };
  const next = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "1"], { env });
  await next.ready();
  await until("it is back", () => !terminal.frame().some((line) => /trying again|is the server running/.test(line)));
  terminal.child.stdin.write("q");
  assert.equal((await terminal.outcome()).code, 0);
});

test("into a pipe: a line for each interval; --once prints it all; without a server both fail", async (t) => {
  const server = startServer(t, ["echo-line", "--listen", "127.0.0.1:0", "--workers", "2"]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  await client.ask("hello");
  const lines = await server.command("top", "--interval", "100ms", "--count", "3");
  assert.equal(lines.code, 0, lines.stderr);
  const [heading, ...figures] = lines.stdout.trimEnd().split("\n");
  assert.match(heading ?? "", /^ +open +new\/s +req\/s/);
  assert.deepEqual(
    figures.map((line) => line.trim().split(/ {2,}/)[0]),
    ["1", "1", "1"],
  );
  assert.ok(!lines.stdout.includes("\u001b"));

  const once = await server.command("top", "--once", "--interval", "100ms");
  assert.equal(once.code, 0, once.stderr);
  assert.match(once.stdout, /^health ok {2}2 of 2 workers accept/m);
  assert.equal(once.stdout.match(/^[01] +accepting/gm)?.length, 2);
  assert.ok(!once.stdout.includes("\u001b"));

  server.signal("SIGTERM");
  await server.exit();
  for (const args of [["--once"], ["--interval", "100ms", "--count", "2"]]) {
    const { code, stdout, stderr } = await server.command("top", ...args);
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.match(stderr, /^headrace: no headrace answers at /);
  }
});

test("what it cannot do is said in one line", async () => {
  for (const [args, message] of [
    [["--interval", "5"], /--interval: "5" has no unit/],
    [["--interval", "1ms"], /--interval: "1ms" is out of range; allowed: 100ms to 1h/],
    [["--count", "0"], /--count: "0" is out of range; allowed: 1 to/],
  ] as const) {
    const { code, stderr } = await headrace(["top", ...args]);
    assert.equal(code, 2);
    assert.match(stderr, message);
  }
});
