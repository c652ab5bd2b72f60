/** Workers that die or stand still under load cost nobody but their own clients anything. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openClient } from "../support/client.js";
import { nothingListens } from "../support/processes.js";
import { writeSteadyService } from "../support/steady-service.js";
import { assertClean, noTrace, nothingHappened, startLoad, startRig, stopLoad } from "../support/under-load.js";
import { until } from "../support/until.js";
import { faultsOf } from "../support/verified-load.js";

const KILLS = 10;

test(`a random worker is killed every second, ${KILLS} times: its own clients are cut, nobody else`, async (t) => {
  const rig = await startRig(t, { config: { workers: 3, migration: { rebalance: false } } });
  const load = rig.load ?? assert.fail();
  for (let kill = 1; kill <= KILLS; kill++) {
    // One that died lately comes back after a pause: then another is killed, if need be the last that serves.
    const alive = (await rig.status()).workers.filter(({ state }) => state === "accepting");
    const victim = alive[Math.floor(Math.random() * alive.length)] ?? assert.fail("nobody serves");
    process.kill(victim.pid, "SIGKILL");
    await sleep(1_000);
    const { held, churn, cutByTag, faults } = await load.take();
    const cut = held.reset + held.disconnected;
    const what = `kill ${kill} of ${victim.pid}, worker ${victim.index} with ${victim.open} open: ${faults.join("\n")}`;
    // Only its own: as many as it had, by the pid that each had last heard.
    assert.deepEqual(cutByTag, cut === 0 ? {} : { [victim.pid]: cut }, what);
    assert.deepEqual(
      [held.refused, held.hung, held.failed, held.lost, held.wrong, held.repeated],
      Array(6).fill(0),
      what,
    );
    // A visit may have been with the victim when it died. Nobody is refused, nobody waits for over a second.
    assert.deepEqual([churn.refused, churn.hung, churn.failed, churn.lost, churn.wrong], Array(5).fill(0), what);
    assert.ok(churn.reset + churn.disconnected <= 10, what);
  }
  await stopLoad(rig);
  await until("all are back", async () => (await rig.status()).workers.every(({ state }) => state === "accepting"));
  await noTrace(rig);
});

test("a worker that stands still is killed after timeouts.hang; meanwhile its sibling serves newcomers", async (t) => {
  const rig = await startRig(t, {
    config: { timeouts: { hang: "2s" } },
    service: { first: 'if (text === "spin") setImmediate(() => { for (;;); });' },
    load: false,
  });
  const client = await openClient(t, rig.port);
  const [stuck = ""] = (await client.ask("spin")).split(" ");
  const load = await startLoad(t, rig, { connections: 20, churnPerSecond: 100 });
  const began = Date.now();
  const killed = await rig.server.logged(
    "it is killed",
    ({ msg, level }) => level >= 40 && /stood still|hang|stuck/i.test(msg),
  );
  assert.ok(Date.now() - began < 4_000, `killed after ${Date.now() - began} ms`);
  assert.match(JSON.stringify(killed), new RegExp(stuck));
  await client.closed;
  await until("it is replaced", async () => {
    const { workers } = await rig.status();
    return workers.every(({ state, pid }) => state === "accepting" && String(pid) !== stuck);
  });
  const report = await load.stop();
  assert.deepEqual([faultsOf(report.held), faultsOf(report.churn), report.faults], [{}, {}, []]);
  await noTrace(rig);
});

test("a worker that stands still for a moment is relieved, not killed", async (t) => {
  const rig = await startRig(t, {
    service: { first: 'if (text === "spin") { const end = Date.now() + 1500; while (Date.now() < end); }' },
    load: false,
  });
  const before = await rig.workerPids();
  const client = await openClient(t, rig.port);
  client.send("spin");
  const load = await startLoad(t, rig, { connections: 20, churnPerSecond: 100 });
  assert.match(await client.line(), /^\d+ /);
  await sleep(500);
  const report = await load.stop();
  assert.deepEqual([faultsOf(report.churn), report.faults], [{}, []]);
  assert.deepEqual(await rig.workerPids(), before);
  await until("every worker serves its own slot again", async () =>
    (await rig.status()).workers.every(({ state }) => state === "accepting"),
  );
});

test("every worker dies at once, over and over: the primary stays, and everything comes back", async (t) => {
  const rig = await startRig(t, { load: false });
  for (let round = 0; round < 3; round++) {
    for (const pid of await rig.workerPids()) process.kill(pid, "SIGKILL");
    await until("both are back", async () => (await rig.status()).workers.every(({ state }) => state === "accepting"));
  }
  rig.load = await startLoad(t, rig);
  await nothingHappened(rig);
});

test("no worker comes back: the primary stays, says that it is degraded, and recovers", async (t) => {
  const rig = await startRig(t, { load: false });
  writeSteadyService(rig.folder, { before: 'throw new Error("no database");' });
  for (const pid of await rig.workerPids()) process.kill(pid, "SIGKILL");
  await until("it is degraded", async () => (await rig.status()).health === "degraded");
  await rig.server.logged("and says so", ({ msg, level }) => level >= 50 && /degraded/.test(msg));
  await rig.server.logged("and why", ({ reason }) => /no database/.test(String(reason)));
  writeSteadyService(rig.folder);
  await until("it is well again", async () => {
    const { health, workers } = await rig.status();
    return health === "ok" && workers.length === 2 && workers.every(({ state }) => state === "accepting");
  });
  rig.load = await startLoad(t, rig);
  await nothingHappened(rig);
});

test("the primary is killed: its workers answer, drain and leave; nothing is orphaned", async (t) => {
  const rig = await startRig(t);
  rig.server.signal("SIGKILL");
  await rig.server.gone();
  await nothingListens(rig.port);
  const { held } = await stopLoad(rig);
  // A line that crossed the server's FIN has no answer; it is owed, not lost.
  assert.deepEqual([held.reset, held.lost, held.wrong], [0, 0, 0]);
  assert.ok(held.disconnected >= 200);
});

test("a worker killed during a reload: the reload ends, and the server is whole", async (t) => {
  const rig = await startRig(t, { config: { workers: 3 } });
  const reload = rig.server.command("reload", "--replace", "--wait");
  await until("it reloads", async () => (await rig.status()).state === "reloading");
  const [victim = 0] = await rig.workerPids();
  process.kill(victim, "SIGKILL");
  await reload;
  await until("three workers accept", async () => {
    const { state, workers } = await rig.status();
    return state === "running" && workers.length === 3 && workers.every((worker) => worker.state === "accepting");
  });
  await rig.load?.take();
  assertClean(await stopLoad(rig));
  await noTrace(rig);
});
