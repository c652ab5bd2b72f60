/** What the log of a running server says, and where it goes. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { type LogLine, startServer, TestServer } from "../support/server.js";
import { until, within } from "../support/until.js";

const TALKATIVE = `
export default defineService({
  codec: line(),
  onOpen(connection) { connection.log.info("opened"); },
  async onMessage(message, context) { context.log.info({ said: message }, "asked"); return message; },
});`;

/** A server that logs to a file of its own. */
async function startWithFile(t: TestContext, more = "", service = "echo-line", env: NodeJS.ProcessEnv = {}) {
  const folder = makeFolder(t);
  const file = join(folder, "h.log");
  const config = join(folder, "c.yaml");
  const write = (text = more): void =>
    writeFileSync(
      config,
      `log: { level: debug, file: h.log }\nlisteners: [{ name: lines, address: "127.0.0.1:0", service: ${service} }]\n${text}\n`,
    );
  write();
  const server = startServer(t, ["--config", config], { env });
  const linesOf = (path: string): LogLine[] =>
    existsSync(path)
      ? readFileSync(path, "utf8")
          .split("\n")
          .slice(0, -1)
          .map((line) => JSON.parse(line))
      : [];
  const ready = await until("ready", () => linesOf(file).find(({ msg }) => msg === "ready"));
  const [{ address }] = ready.listeners as [{ address: string }];
  return { server, folder, file, linesOf, write, port: Number(address.split(":").at(-1)) };
}

test("lines of a request name it and its connection, and the end of a connection says all there is to know", async (t) => {
  const folder = makeFolder(t);
  const service = writeService(folder, TALKATIVE);
  const server = startServer(t, [service, "--listen", "127.0.0.1:0", "--workers", "1", "--log-level", "debug"]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  assert.equal(await client.ask("one"), "one");
  assert.equal(await client.ask("three"), "three");
  const { localPort } = client.socket;
  client.socket.end();
  const closed = await server.logged("its end", ({ msg }) => msg === "connection closed");
  const opened = await server.logged("its beginning", ({ msg }) => msg === "opened");
  const asked = server.lines.filter(({ msg }) => msg === "asked");
  const { connection } = opened;
  assert.match(String(connection), /^1\.0-/);
  assert.deepEqual(
    asked.map(({ said }) => said),
    ["one", "three"],
  );
  assert.deepEqual(
    asked.map((line) => line.connection),
    [connection, connection],
  );
  assert.deepEqual(
    asked.map(({ request }) => request),
    [`${connection}.1`, `${connection}.2`],
  );
  const { time, pid, durationMs, ...told } = closed;
  assert.ok((durationMs as number) >= 0 && (durationMs as number) < 20_000);
  assert.deepEqual(told, {
    level: 20,
    worker: 0,
    listener: "service",
    connection,
    reason: "peer-closed",
    remote: { host: "127.0.0.1", port: localPort },
    bytesReceived: 10,
    bytesSent: 10,
    msg: "connection closed",
  });
});

test("peers that break the protocol are told once a second, with how many there were and one of them", async (t) => {
  const args = ["echo-frame", "--listen", "127.0.0.1:0", "--workers", "1"];
  const server = startServer(t, args, { env: { HEADRACE_LIMITS_FRAME: "1KiB" } });
  const [port = 0] = await server.ready();
  /** Sends what is no frame, and waits for the end. */
  const offend = (bytes: number[]): Promise<void> =>
    new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1", () => socket.write(Buffer.from(bytes)));
      socket.on("error", () => {}).on("close", () => resolve());
      socket.resume();
    });
  const isFault = ({ msg }: LogLine): boolean => /closed: frame-/.test(msg);
  const started = Date.now();
  await offend([0, 0, 0, 0]);
  await server.logged("the first", isFault);
  for (let i = 0; i < 20; i++) await offend([0, 0, 0, 0]);
  for (let i = 0; i < 5; i++) await offend([127, 0, 0, 0]);
  const sum = (reason: string): number =>
    server.lines
      .filter((line) => isFault(line) && line.reason === reason)
      .reduce((total, line) => total + Number(line.count), 0);
  await until("all are told", () => sum("frame-empty") === 21 && sum("frame-too-large") === 5);
  const lines = server.lines.filter(isFault);
  const most = 2 * (Math.ceil((Date.now() - started) / 1000) + 1);
  assert.ok(lines.length <= most, `${lines.length} lines for 26 connections`);
  for (const { level, listener, example } of lines) {
    assert.deepEqual([level, listener], [30, "echo-frame"]);
    assert.equal((example as { host: string }).host, "127.0.0.1");
  }
  assert.match(lines[0]?.msg ?? "", /^a connection was closed: frame-empty$/);
});

test("USR1: primary and workers go on in a new file, nothing is lost; the terminal's lines are in it too", async (t) => {
  const { server, file, linesOf, port } = await startWithFile(t, "workers: 2");
  const visit = async (): Promise<void> => {
    const client = await openClient(t, port);
    await client.ask("x");
    client.socket.end();
    await client.closed;
  };
  const closes = (path: string): number => linesOf(path).filter(({ msg }) => msg === "connection closed").length;
  assert.equal(statSync(file).mode & 0o7777, 0o640 & ~process.umask());
  const files = [file];
  for (let round = 1; round <= 3; round++) {
    for (let i = 0; i < 8; i++) await visit();
    const old = `${file}.${round}`;
    renameSync(file, old);
    files.push(old);
    server.signal("SIGUSR1");
    await until("it was reopened", () => linesOf(file).some(({ msg }) => msg === "the log file was reopened"));
  }
  for (let i = 0; i < 8; i++) await visit();
  await until("each end is somewhere", () => files.reduce((sum, path) => sum + closes(path), 0) === 32);
  await until("workers write to the last one", () => closes(file) > 0);
  const [first] = linesOf(file);
  assert.equal(first?.pid, server.pid, "the first line of the new file is the primary's");
  assert.deepEqual(server.lines, [], "nothing of it on stdout");
});

test("a file that cannot be reopened: the lines go where they went, and the service goes on", async (t) => {
  const { server, folder, file, linesOf, port } = await startWithFile(t, "workers: 1");
  const moved = `${folder}-moved`;
  renameSync(folder, moved);
  t.after(() => renameSync(moved, folder));
  server.signal("SIGUSR1");
  const there = join(moved, "h.log");
  const cannot = await until("it is said", () => linesOf(there).find(({ msg }) => /cannot be reopened/.test(msg)));
  assert.match(String(cannot.reason), /log\.file: .* cannot be opened \(ENOENT\)/);
  const client = await openClient(t, port);
  assert.equal(await client.ask("still here"), "still here");
  assert.equal(existsSync(file), false);
});

test("a worker that is started when the file cannot be opened serves, and logs to stdout", async (t) => {
  const { server, folder, port } = await startWithFile(t, "workers: 1");
  const { workers } = await server.status();
  const moved = `${folder}-moved`;
  renameSync(folder, moved);
  t.after(() => renameSync(moved, folder));
  process.kill(workers[0]?.pid ?? 0, "SIGKILL");
  const line = await server.logged("it is said on stdout", ({ msg }) => /this worker logs to stdout/.test(msg));
  assert.equal(line.level, 50);
  const client = await until("it serves", () => openClient(t, port).catch(() => undefined));
  assert.equal(await client.ask("still here"), "still here");
});

test("log.file cannot change while the server runs, and one that cannot be opened is refused at the start", async (t) => {
  const { server, folder } = await startWithFile(t, "workers: 1");
  const config = join(folder, "c.yaml");
  writeFileSync(config, readFileSync(config, "utf8").replace("h.log", "other.log"));
  const { code, stderr } = await server.command("reload", "--wait");
  assert.equal(code, 1);
  assert.match(stderr, /log\.file: cannot change from .*h\.log to .*other\.log while the server runs/);

  const refused = new TestServer(makeFolder(t), ["echo-line"], { env: { HEADRACE_LOG_FILE: "/nonexistent/h.log" } });
  assert.equal((await refused.exit()).code, 2);
  assert.match(
    await refused.stderr,
    /^headrace: log\.file: \/nonexistent\/h\.log cannot be opened \(ENOENT\); allowed: /,
  );
});

test("nobody reads the log: requests are answered as ever, memory stays, and what is lost is counted", async (t) => {
  const folder = makeFolder(t);
  const body = `
    const text = "x".repeat(2000);
    export default defineService({
      codec: line(),
      onMessage(message, context) { for (let i = 0; i < 20; i++) context.log.info(text); return message; },
    });`;
  const args = [writeService(folder, body), "--listen", "127.0.0.1:0", "--workers", "1"];
  const server = startServer(t, args, { silent: true });
  const port = await until("it listens", async () => {
    const status = await server.status().catch(() => undefined);
    return status?.state === "running" ? Number(status.listeners[0]?.address.split(":").at(-1)) : undefined;
  });
  const client = await openClient(t, port);
  const memory = async (): Promise<number> => (await server.status()).workers[0]?.memoryBytes ?? 0;
  const ask = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) assert.equal(await client.ask(`${i}`), `${i}`);
  };
  // 8 MB: more than may wait, and more than a pipe holds.
  await within("the first are answered", ask(200));
  await until("lines are counted as lost", async () => (await server.status()).totals.logDropped > 0);
  const before = await memory();
  await within("the others are answered too", ask(1000));
  const after = await memory();
  assert.ok(after - before < 48 * 1024 * 1024, `grew from ${before} to ${after}`);
  const { totals } = await server.status();
  assert.ok(totals.logDropped > 10_000, `${totals.logDropped} lines`);
  assert.match((await server.command("status")).stdout, /^log: \d+ lines dropped$/m);
});

/** Its replies come once the file `go` is there. */
const PATIENT = `
import { existsSync } from "node:fs";
export default defineService({
  codec: line(),
  onMessage: (message) => new Promise((resolve) => {
    const timer = setInterval(() => {
      if (!existsSync(process.env.TEST_GO)) return;
      clearInterval(timer);
      resolve(message);
    }, 5);
  }),
});`;

test("after an upgrade both generations go on in the new file", async (t) => {
  const services = makeFolder(t);
  const go = join(services, "go");
  const more = "workers: 1\ntimeouts: { prove: 100ms }";
  const path = writeService(services, PATIENT);
  const { server, file, linesOf, port } = await startWithFile(t, more, path, { TEST_GO: go });
  const before = await openClient(t, port);
  before.send("old");
  await until("its request is under way", async () => (await server.status()).totals.requests === 1);
  const upgraded = await server.command("upgrade", "--wait");
  assert.equal(upgraded.code, 0, upgraded.stderr);
  const { pid, draining } = await server.status();
  assert.notEqual(pid, server.pid);
  assert.equal(draining.length, 1, "the old generation waits for its request");
  const after = await openClient(t, port);
  after.send("new");
  renameSync(file, `${file}.1`);
  process.kill(pid, "SIGUSR1");
  const reopened = (): number => linesOf(file).filter(({ msg }) => msg === "the log file was reopened").length;
  await until("both primaries have reopened it", () => reopened() === 2);
  const pids = new Set(linesOf(file).map((line) => line.pid));
  assert.ok(pids.has(server.pid) && pids.has(pid));
  writeFileSync(go, "");
  assert.deepEqual([await before.line(), await after.line()], ["old", "new"]);
  for (const client of [before, after]) client.socket.end();
  await server.exit();
  assert.ok(
    linesOf(file).some((line) => line.pid === server.pid && line.msg === "left to the next generation"),
    "the old generation's last word",
  );
});
