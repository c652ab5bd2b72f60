/**
 * Leaks planted in a service, and found with what the runbook says under "A leak" and nothing else: which process, which
 * kind of descriptor, which name holds the memory. A service without a leak under the same load is not accused.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { LineClient, openClient } from "../support/client.js";
import { makeFolder, writeService } from "../support/folder.js";
import { RUNBOOK, startScript } from "../support/runbook.js";
import { startServer, type TestServer } from "../support/server.js";

const EVERY = 10;
/** For every tenth connection a file that nobody closes; and every message is kept in the connection's state. */
const LEAKY = `import { openSync } from "node:fs";
let connections = 0;
export default defineService({
  codec: line(),
  timeouts: { firstByte: "off" },
  state: () => ({ history: [] }),
  onOpen: () => { if (++connections % ${EVERY} === 0) openSync(new URL("./motd.txt", import.meta.url)); },
  onMessage(text, { connection }) {
    connection.state.history.push(text + " " + connection.state.history.length);
    return "ok";
  },
});`;
const CLEAN = `export default defineService({ codec: line(), onMessage: () => "ok" });`;

async function start(t: TestContext, body: string): Promise<{ server: TestServer; port: number }> {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "motd.txt"), "welcome\n");
  const args = [writeService(folder, body), "--listen", "127.0.0.1:0", "--workers", "1"];
  const server = startServer(t, args, { cwd: folder });
  const [port = 0] = await server.ready();
  return { server, port };
}

/** Clients that come, say a line and go, until `done` settles. */
async function comeAndGo(port: number, done: Promise<unknown>): Promise<void> {
  let going = true;
  const ended = done.finally(() => {
    going = false;
  });
  while (going) {
    const socket = connect(port, "127.0.0.1");
    const client = new LineClient(socket);
    assert.equal(await client.ask("hello"), "ok");
    socket.end();
    await client.closed;
    // So that the load is one that a busy machine can do.
    await pause(5);
  }
  await ended;
}

test("descriptors: fd-leak.sh names the file that grows, and the worker", async (t) => {
  const { server, port } = await start(t, LEAKY);
  const look = startScript("fd-leak.sh", ["--seconds", "4", "--samples", "5"], server).ended;
  await comeAndGo(port, look);
  const { code, stdout, stderr } = await look;
  assert.equal(code, 4, stdout + stderr);
  const [worker] = (await server.status()).workers;
  const accused = stdout.split("\n").filter((line) => line.startsWith("GROWS"));
  assert.equal(accused.length, 1, stdout);
  assert.match(accused[0] ?? "", new RegExp(`^GROWS: /.*/motd\\.txt in worker-0 ${worker?.pid}: \\+\\d+$`));
  t.diagnostic(stdout);
});

test("descriptors: a service that closes what it opens is not accused", async (t) => {
  const { server, port } = await start(t, CLEAN);
  const look = startScript("fd-leak.sh", ["--seconds", "3", "--samples", "4"], server).ended;
  await comeAndGo(port, look);
  const { code, stdout, stderr } = await look;
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /nothing grows but the number of clients/);
});

test("memory: status says where it is not, two snapshots and heap-growth.mjs name what holds it, and it moves", async (t) => {
  const CLIENTS = 20;
  const MESSAGES = 100;
  const { server, port } = await start(t, LEAKY);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => openClient(t, port)));
  const talk = async (): Promise<void> => {
    for (let index = 0; index < MESSAGES; index++) await Promise.all(clients.map((client) => client.ask("hello")));
  };
  const take = async (name: string): Promise<string> => {
    const file = join(server.folder, `${name}.heapsnapshot`);
    const { code, stderr } = await server.command("profile", "heap", "--worker", "0", "--out", file);
    assert.equal(code, 0, stderr);
    return file;
  };
  const grown = (before: string, after: string): string =>
    execFileSync(process.execPath, [join(RUNBOOK, "heap-growth.mjs"), before, after, "--top", "3"], {
      encoding: "utf8",
    });
  await talk();
  // No connection holds a byte: it is not what HeadraceMemoryPressure is about.
  const [worker] = (await server.status()).workers;
  assert.deepEqual([worker?.open, worker?.bytesHeldIn, worker?.bytesHeldOut], [CLIENTS, 0, 0]);
  const before = await take("before");
  await talk();
  const answer = grown(before, await take("after"));
  t.diagnostic(answer);
  const first = answer.split("\n")[1] ?? "";
  assert.match(first, /Object\.history$/);
  assert.ok(Number(first.trim().split(/\s+/)[2]) >= CLIENTS * MESSAGES, answer);

  // It is in the connections' state, so it moves with them.
  const drained = await server.command("drain", "0", "--wait");
  assert.equal(drained.code, 0, drained.stderr);
  await talk();
  assert.equal((await server.status()).totals.open, CLIENTS);
  assert.match(grown(before, await take("moved")), /Object\.history/);
});
