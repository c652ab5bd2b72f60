/** The control socket and the commands that use it, against a real server. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import type { ServerStatus } from "#src/control/status.js";
import { openClient } from "../support/client.js";
import { headrace } from "../support/command.js";
import { makeFolder, writeService } from "../support/folder.js";
import { startServer } from "../support/server.js";

const PORT_0 = ["--listen", "127.0.0.1:0", "--workers", "2"];

test("status tells what the server does, for people and as JSON", async (t) => {
  const server = startServer(t, PORT_0);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  await client.ask("hello");
  const { code, stdout } = await server.command("status", "--json");
  assert.equal(code, 0);
  const status = JSON.parse(stdout) as ServerStatus;
  assert.equal(status.pid, server.pid);
  assert.equal(status.state, "running");
  assert.ok(status.uptimeMs > 0);
  assert.equal(status.listeners[0]?.address, `127.0.0.1:${port}`);
  assert.deepEqual([status.totals.open, status.totals.requests, status.totals.bytesReceived], [1, 1, 6]);
  for (const worker of status.workers) {
    assert.equal(worker.state, "accepting");
    assert.ok((worker.memoryBytes ?? 0) > 1024 * 1024);
    assert.ok((worker.cpuPercent ?? -1) >= 0);
  }
  client.socket.end();
  await client.closed;
  const people = await server.command("status");
  assert.match(people.stdout, new RegExp(`is running, process ${server.pid}`));
  assert.match(people.stdout, new RegExp(`echo-line +127\\.0\\.0\\.1:${port} +echo-line +0 +1 +1`));
  assert.match(people.stdout, /closed: peer-closed 1/);
});

test("stop returns at once, stop --wait when the server has gone", async (t) => {
  const folder = makeFolder(t);
  const gate = join(folder, "gate");
  const slow = `import { existsSync } from "node:fs";
  export default defineService({ codec: line(), async onMessage(text, { log }) {
    log.info("asked");
    while (!existsSync(${JSON.stringify(gate)})) await new Promise(setImmediate);
    return text;
  } });`;
  const server = startServer(t, [writeService(folder, slow), ...PORT_0]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("in flight");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked");
  const asked = await server.command("stop");
  assert.deepEqual([asked.code, asked.stdout], [0, "stopping\n"]);
  const waiting = server.command("stop", "--wait");
  await server.logged(
    "the second asks",
    () => server.lines.filter(({ msg }) => msg.startsWith("stopping")).length === 2,
  );
  writeFileSync(gate, "");
  const waited = await waiting;
  assert.deepEqual([waited.code, waited.stdout], [0, "stopped: 1 connections closed, 0 cut off\n"], waited.stderr);
  assert.equal(await client.line(), "in flight");
  assert.deepEqual(server.processes, []);
  assert.ok(!existsSync(server.control));
});

test("stop --fast cuts off what a graceful stop would wait for", async (t) => {
  const never = `export default defineService({ codec: line(), async onMessage(text, { log }) {
    log.info("asked");
    await new Promise(() => {});
  } });`;
  const server = startServer(t, [writeService(makeFolder(t), never), ...PORT_0]);
  const [port = 0] = await server.ready();
  const client = await openClient(t, port);
  client.send("never");
  await server.logged("the request has arrived", ({ msg }) => msg === "asked");
  await server.command("stop");
  const { code, stdout } = await server.command("stop", "--wait", "--fast");
  assert.deepEqual([code, stdout], [0, "stopped: 0 connections closed, 1 cut off\n"]);
  assert.equal(await client.closed, "ECONNRESET");
});

test("garbage gets one answer and does the server no harm", async (t) => {
  const server = startServer(t, PORT_0);
  await server.ready();
  const lines = [
    "\n",
    "hello\n",
    "{}\n",
    '{"protocol":1}\n',
    '{"protocol":9,"type":"stop"}\n',
    `${"x".repeat(100_000)}`,
    "\0\xff\n",
  ];
  for (const line of lines) {
    const socket = connect(server.control);
    await once(socket, "connect");
    socket.write(line);
    const answers = (await text(socket)).trimEnd().split("\n");
    assert.equal(answers.length, 1, line);
    assert.equal(JSON.parse(answers[0] ?? "").type, "error", line);
  }
  assert.equal((await server.status()).state, "running");
});

test("a command without a server says where it looked and what to do", async (t) => {
  const folder = makeFolder(t);
  for (const args of [["status"], ["stop", "--wait"]]) {
    const { code, stdout, stderr } = await headrace(args, { env: { RUNTIME_DIRECTORY: folder } });
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, new RegExp(`^headrace: no headrace answers at ${folder}/control\\.sock .*--control PATH\n$`));
  }
});

test("a server that talks nonsense is not believed", async (t) => {
  const path = `${makeFolder(t)}/nonsense.sock`;
  const impostor = createServer((socket) => socket.on("error", () => {}).end("welcome\n")).listen(path);
  t.after(() => impostor.close());
  await once(impostor, "listening");
  const { code, stderr } = await headrace(["status", "--control", path]);
  assert.equal(code, 1);
  assert.match(stderr, /refused: not a line of JSON/);
});

test("HEADRACE_CONTROL names the socket for server and commands", async (t) => {
  const env = { HEADRACE_CONTROL: `${makeFolder(t)}/named.sock` };
  const server = startServer(t, PORT_0, { env });
  await server.ready();
  const { code, stdout } = await headrace(["status", "--json"], { env });
  assert.equal(code, 0);
  assert.equal((JSON.parse(stdout) as ServerStatus).control, env.HEADRACE_CONTROL);
});
