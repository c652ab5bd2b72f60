/** Live connections change their worker: nothing is lost, repeated or reordered, and state goes with them. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { openClient } from "../support/client.js";
import { writeService } from "../support/folder.js";
import { openPeer } from "../support/peer.js";
import { activate, CURRENT_LISTENER, writeRelease } from "../support/releases.js";
import type { SteadyOptions } from "../support/steady-service.js";
import { type GivenConfig, nothingHappened, type Rig, startRig } from "../support/under-load.js";
import { until } from "../support/until.js";

/** One worker and no load: the test's own clients are all there are. */
function startQuiet(t: TestContext, service: SteadyOptions, config: GivenConfig = {}): Promise<Rig> {
  return startRig(t, { config: { workers: 1, ...config }, service, load: false });
}

const warnings = (rig: Rig, about: RegExp): number =>
  rig.server.lines.filter(({ level, msg, ...rest }) => level >= 40 && about.test(`${msg} ${JSON.stringify(rest)}`))
    .length;

test("drain: all connections of a worker move to its replacement, the other worker is not touched", async (t) => {
  const rig = await startRig(t);
  const before = (await rig.status()).workers;
  await rig.command("drain", "0", "--wait");
  const after = (await rig.status()).workers;
  assert.notEqual(after[0]?.pid, before[0]?.pid);
  assert.equal(after[1]?.pid, before[1]?.pid);
  assert.ok((after[0]?.movedIn ?? 0) >= (before[0]?.open ?? 0) - 20, `${after[0]?.movedIn} of ${before[0]?.open}`);
  await until("the old one has gone", () => rig.server.processes.length === 3);
  const { held } = await nothingHappened(rig);
  assert.equal(held.opened, 200);
});

test("moved ten times under load, in halves of lines and with answers under way: every byte is right", async (t) => {
  // Half of the answers come later, so that requests are in flight whenever a move begins. Handlers that end out of
  // order cannot count lines in the state: these do not.
  const rig = await startRig(t, {
    service: {
      more: 'concurrency: "ordered",',
      first: `const reply = tag + " " + text;
        return Math.random() < 0.5 ? new Promise((done) => setTimeout(done, 30, reply)) : reply;`,
    },
    load: { intervalMs: 25, connections: 100 },
  });
  for (let round = 0; round < 10; round++) await rig.command("drain", String(round % 2), "--wait");
  const { held } = await nothingHappened(rig);
  assert.equal(held.opened, 100);
});

test("unsent output moves: a client that did not read gets all of it", async (t) => {
  const rig = await startQuiet(t, {
    first:
      'if (text === "much") { for (let i = 0; i < 4000; i++) connection.send(String(i).padStart(1023, ".")); return "end"; }',
  });
  const peer = await openPeer(t, rig.port, { paused: true });
  peer.write("much\n");
  await until("output waits in the worker", async () => (await rig.status()).totals.requests === 1);
  const [before] = await rig.workerPids();
  await rig.command("drain", "0", "--wait");
  assert.notEqual((await rig.workerPids())[0], before);
  peer.socket.resume();
  await peer.receives(4000 * 1024 + 4);
  const lines = peer.text.split("\n");
  assert.equal(lines.length, 4002);
  for (let i = 0; i < 4000; i++) assert.equal(lines[i], String(i).padStart(1023, "."));
  assert.equal(lines[4000], "end");
  await until("the old worker has gone", () => rig.server.processes.length === 2);
});

test("a half line moves with its connection", async (t) => {
  const rig = await startQuiet(t, {});
  const client = await openClient(t, rig.port);
  client.socket.write("1 0 ha");
  await until("it has arrived", async () => (await rig.status()).totals.bytesReceived === 6);
  const [before] = await rig.workerPids();
  await rig.command("drain", "0", "--wait");
  client.socket.write("lf\n");
  const [pid] = await rig.workerPids();
  assert.notEqual(pid, before);
  assert.equal(await client.line(), `${pid} 1 0 half`);
});

test("a request in flight keeps its connection where it is until it is answered", async (t) => {
  const rig = await startQuiet(t, {
    first: 'if (text === "slow") return new Promise((done) => setTimeout(() => done(tag + " slow"), 1000));',
  });
  const client = await openClient(t, rig.port);
  client.send("slow");
  await until("it is asked", async () => (await rig.status()).totals.requests === 1);
  const [before] = await rig.workerPids();
  const drain = rig.command("drain", "0", "--wait");
  assert.equal(await client.line(), `${before} slow`);
  await drain;
  const reply = await client.ask("1 0 x");
  assert.equal(reply, `${(await rig.workerPids())[0]} 1 0 x`);
});

test("suspend and resume carry the state as the service likes; a new version gets the old version's number", async (t) => {
  const service = (version: number, resume: string): SteadyOptions => ({
    more: `stateVersion: ${version},
      suspend: ({ state }) => Buffer.from("count " + state.count),
      resume(connection, bytes, env, version) { ${resume} },`,
  });
  const read = 'connection.state.count = Number(Buffer.from(bytes).toString().split(" ")[1]);';
  const rig = await startRig(t, {
    config: { listeners: [CURRENT_LISTENER] },
    prepare(folder) {
      writeRelease(folder, "1", service(1, read));
      activate(folder, "1");
    },
  });
  await rig.command("reload", "--replace", "--wait");
  writeRelease(rig.folder, "2", service(2, `if (version !== 1) throw new Error("version " + version); ${read}`));
  activate(rig.folder, "2");
  await rig.command("upgrade", "--wait");
  const { held } = await nothingHappened(rig);
  assert.equal(held.opened, 200);
});

test("handOff and takeOver carry what belongs to the worker, before its connections come", async (t) => {
  const rig = await startRig(t, {
    config: { workers: 1 },
    load: false,
    prepare: (folder) =>
      writeService(
        folder,
        `export default defineService({
           codec: line(),
           env: () => ({ rooms: {} }),
           onMessage(text, { env }) {
             env.rooms[text] = (env.rooms[text] ?? 0) + 1;
             return process.pid + " " + JSON.stringify(env.rooms);
           },
           handOff: async (env) => Buffer.from(JSON.stringify(env.rooms)),
           takeOver(env, bytes) { Object.assign(env.rooms, JSON.parse(Buffer.from(bytes).toString())); },
         });`,
      ),
  });
  const client = await openClient(t, rig.port);
  assert.match(await client.ask("red"), / \{"red":1\}$/);
  await rig.command("drain", "0", "--wait");
  const [pid] = await rig.workerPids();
  assert.equal(await client.ask("blue"), `${pid} {"red":1,"blue":1}`);
  await rig.command("reload", "--replace", "--wait");
  assert.match(await client.ask("red"), / \{"red":2,"blue":1\}$/);
});

test("a state that cannot be cloned: the connection drains, and that is said once", async (t) => {
  const rig = await startQuiet(t, { first: "connection.state.callback = () => {};" }, { timeouts: { drain: "1s" } });
  const clients = await Promise.all([1, 2, 3].map(() => openClient(t, rig.port)));
  for (const client of clients) assert.match(await client.ask("1 0 x"), / 1 0 x$/);
  const [before] = await rig.workerPids();
  const drain = rig.command("drain", "0", "--wait");
  await until("there is a replacement", async () => (await rig.workerPids())[0] !== before);
  // Who comes now is the new worker's.
  assert.equal(await rig.ask("1 0 x"), `${(await rig.workerPids())[0]} 1 0 x`);
  for (const client of clients) await client.closed;
  await drain;
  assert.equal(warnings(rig, /clon|suspend/i), 1);
});

test("a service that opts out: its connections drain, without a complaint", async (t) => {
  const rig = await startQuiet(t, { more: "migrate: false," }, { timeouts: { drain: "1s" } });
  const client = await openClient(t, rig.port);
  assert.match(await client.ask("1 0 x"), / 1 0 x$/);
  const drain = rig.command("drain", "0", "--wait");
  assert.equal(await client.closed.then((errno) => errno ?? "in order"), "in order");
  await drain;
  assert.equal(warnings(rig, /clon|suspend/i), 0);
});

test("migration can be turned off: connections drain", async (t) => {
  const rig = await startQuiet(t, {}, { migration: { enabled: false }, timeouts: { drain: "1s" } });
  const client = await openClient(t, rig.port);
  assert.match(await client.ask("1 0 x"), / 1 0 x$/);
  const drain = rig.command("drain", "0", "--wait");
  assert.equal(await client.closed.then((errno) => errno ?? "in order"), "in order");
  await drain;
});
