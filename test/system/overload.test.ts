/** Services that fail in every way, thread pools and overload, on a server of real processes. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openClient } from "../support/client.js";
import { headrace } from "../support/command.js";
import { makeFolder } from "../support/folder.js";
import { type Footprint, watchFootprint } from "../support/footprint.js";
import { Peer } from "../support/peer.js";
import { startServer, type TestServer } from "../support/server.js";
import { until } from "../support/until.js";

const INDEX = import.meta.resolve("#src/index.js");

const TASKS = `
export function spin(ms) { const until = performance.now() + ms; while (performance.now() < until); return ms; }
export function exit() { process.exit(1); }
`;

/** A line service that does what it is told, in its handler or in its pool. */
const SERVICE = `
import { definePool, defineService, line } from ${JSON.stringify(INDEX)};
const pool = definePool({ name: "work", module: new URL("./tasks.mjs", import.meta.url), threads: 1, maxQueueDelay: "10s" });
const spin = (ms) => { const until = performance.now() + ms; while (performance.now() < until); };
export default defineService({
  codec: line(),
  pools: [pool],
  busy: () => "busy",
  onMessage(text, context) {
    const [verb, number] = text.split(" ");
    if (verb === "throw") throw new Error("thrown");
    if (verb === "reject") return Promise.reject(new Error("rejected"));
    if (verb === "never") return new Promise(() => {});
    if (verb === "block") spin(Number(number));
    if (verb === "task") return context.run(pool, "spin", Number(number)).then(() => text);
    if (verb === "die") return context.run(pool, "exit").then(() => text);
    return text;
  },
});
`;

function writeService(t: TestContext, tasks: string | undefined = TASKS): string {
  const folder = makeFolder(t);
  writeFileSync(join(folder, "service.mjs"), SERVICE);
  if (tasks !== undefined) writeFileSync(join(folder, "tasks.mjs"), tasks);
  return folder;
}

const MiB = 1 << 20;
/** Threads and their replacements come on top of what the connections hold. */
const BOUNDS = { memory: 128 * MiB, held: 2 * MiB };

interface Started {
  readonly server: TestServer;
  readonly port: number;
  readonly footprint: Footprint;
}

async function start(t: TestContext, options = ""): Promise<Started> {
  const folder = writeService(t);
  const yaml = `workers: 1\nlisteners: [{ address: "127.0.0.1:0", service: ./service.mjs }]\n${options}`;
  writeFileSync(join(folder, "headrace.yaml"), yaml);
  const server = startServer(t, [], { cwd: folder });
  const [port = 0] = await server.ready();
  return { server, port, footprint: await watchFootprint(t, server, BOUNDS) };
}

async function worker({
  server,
}: {
  readonly server: TestServer;
}): Promise<{ pid: number; shed: number; waiting: number }> {
  const [first] = (await server.status()).workers;
  return first ?? assert.fail("no worker");
}

test("a service that throws, rejects, never answers, blocks the loop or kills its thread: others go on", async (t) => {
  const started = await start(t, "timeouts: { request: 300ms }\nshed: { queueDelay: off }\n");
  const { server, port, footprint } = started;
  const { pid } = await worker(started);
  const other = await openClient(t, port);
  for (const verb of ["throw", "reject", "never", "die", "block 1000"]) {
    const client = await openClient(t, port);
    client.send(verb);
    if (verb === "block 1000") assert.equal(await client.line(), verb, "late, and not lost");
    else assert.equal(await client.closed, undefined, verb);
    assert.equal(await other.ask(`after ${verb}`), `after ${verb}`);
    if (verb === "block 1000") client.socket.destroy();
  }
  assert.equal(await other.ask("task 5"), "task 5", "the thread was replaced");
  const { closes, totals } = await server.status();
  assert.deepEqual([closes["handler-error"], closes["request-timeout"]], [3, 1]);
  assert.equal(totals.shed, 0);
  assert.equal((await worker(started)).pid, pid, "no worker was replaced");
  other.socket.destroy();
  t.diagnostic(await footprint.calm());
});

test("hash-frame answers what was sent, in order; its threads end with the server", async (t) => {
  const server = startServer(t, ["hash-frame", "--listen", "127.0.0.1:0", "--workers", "2"]);
  const [port = 0] = await server.ready();
  const footprint = await watchFootprint(t, server, { memory: 128 * MiB, held: 16 * MiB });
  const socket = connect(port, "127.0.0.1");
  t.after(() => socket.destroy());
  const peer = new Peer(socket);
  const frames = Array.from({ length: 300 }, (_, index) => {
    const frame = Buffer.alloc(4 + 1 + (index % 7) * 5_000, index);
    frame.writeUInt32BE(frame.length - 4);
    return frame;
  });
  const all = Buffer.concat(frames);
  socket.write(all);
  await until("all are back", () => peer.length >= all.length);
  assert.ok(peer.bytes.equals(all));
  socket.destroy();
  t.diagnostic(await footprint.calm());
  const { code } = await server.command("stop", "--wait", "--control", server.control);
  assert.equal(code, 0);
  await server.gone();
});

test("overloaded, it answers busy, stays quick, and status counts; afterwards it is as before", async (t) => {
  const started = await start(t, "tasks: { queue: 50 }\n");
  const { server, port, footprint } = started;
  const clients = await Promise.all(Array.from({ length: 40 }, () => openClient(t, port)));
  let busy = 0;
  const waits: number[] = [];
  const until3s = performance.now() + 3_000;
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() < until3s) {
        const at = performance.now();
        if ((await client.ask("task 5")) === "busy") {
          busy += 1;
          await new Promise((resolve) => setTimeout(resolve, 10));
        } else waits.push(performance.now() - at);
      }
    }),
  );
  const { totals, listeners } = await server.status();
  assert.ok(busy > waits.length, `${busy} busy, ${waits.length} done`);
  assert.ok(waits.length > 250, `${waits.length} of about 600 done`);
  assert.equal(totals.shed, busy);
  assert.equal(listeners[0]?.shed, busy);
  assert.ok(server.lines.some(({ msg }) => /pool work is overloaded/.test(msg)));
  const half = waits.slice(waits.length / 2).toSorted((a, b) => a - b);
  assert.ok((half[Math.floor(half.length / 2)] ?? 0) < 100, "the queue stays short");
  await server.logged("calm", ({ msg }) => /pool work is no longer overloaded/.test(msg));
  for (let each = 0; each < 20; each++) assert.equal(await clients[0]?.ask("task 1"), "task 1");
  assert.equal((await worker(started)).waiting, 0);
  for (const { socket } of clients) socket.destroy();
  t.diagnostic(await footprint.calm());
});

test("a stop and a reload finish the tasks that wait", async (t) => {
  const started = await start(t, "shed: { queueDelay: off }\n");
  const { server, port, footprint } = started;
  for (const how of [
    ["reload", "--replace", "--wait"],
    ["stop", "--wait"],
  ]) {
    const clients = await Promise.all(Array.from({ length: 40 }, () => openClient(t, port)));
    for (const client of clients) client.send("task 30");
    await until("they wait", async () => (await worker(started)).waiting > 3);
    const replies = Promise.all(clients.map((client) => client.line()));
    assert.equal((await server.command(...how, "--control", server.control)).code, 0);
    assert.deepEqual(await replies, Array(40).fill("task 30"), how[0]);
    for (const { socket } of clients) socket.destroy();
    if (how[0] === "reload") t.diagnostic(await footprint.calm());
  }
});

const BAD: [what: string, tasks: string | undefined, problem: RegExp][] = [
  ["is not there", undefined, /pool work: module .*tasks\.mjs does not exist/],
  [
    "throws",
    "throw new Error('no licence');",
    /pool work: module .*tasks\.mjs threw while it was loaded .*: no licence/,
  ],
];

for (const [what, tasks, problem] of BAD) {
  test(`a pool's module that ${what} is named by check and at the start`, async (t) => {
    const folder = makeFolder(t);
    writeFileSync(join(folder, "service.mjs"), SERVICE);
    if (tasks !== undefined) writeFileSync(join(folder, "tasks.mjs"), tasks);
    const checked = await headrace(["check", "./service.mjs"], { cwd: folder });
    const expected = tasks === undefined ? 2 : 1;
    assert.equal(checked.code, expected);
    assert.match(checked.stderr, problem);
    const ran = await headrace(["run", "./service.mjs", "--listen", "127.0.0.1:0"], {
      cwd: folder,
      env: { RUNTIME_DIRECTORY: folder },
    });
    assert.match(ran.stdout + ran.stderr, problem);
    assert.equal(ran.code, expected);
  });
}

test("check shows the pools' and the shedding's settings, and a good pool passes", async (t) => {
  const folder = writeService(t);
  const { code, stdout } = await headrace(["check", "./service.mjs"], { cwd: folder });
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^tasks:\n {2}threads: auto\n {2}queue: 1024\nshed:\n {2}queueDelay: 10ms\n {2}loopDelay: 500ms\n {2}memory: off$/m,
  );
});
