/** The verified load itself: it finds nothing wrong with a sound server, and everything that is wrong with others. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { makeFolder } from "../support/folder.js";
import { startServer, type TestServer } from "../support/server.js";
import { type SteadyOptions, writeSteadyService } from "../support/steady-service.js";
import { until } from "../support/until.js";
import { faultsOf, type LoadReport, VerifiedLoad, type VerifiedLoadOptions } from "../support/verified-load.js";

interface Rig {
  readonly server: TestServer;
  readonly load: VerifiedLoad;
}

async function startRig(
  t: TestContext,
  service: SteadyOptions = {},
  options: Partial<VerifiedLoadOptions> = {},
): Promise<Rig> {
  const path = writeSteadyService(makeFolder(t), service);
  const server = startServer(t, [path, "--listen", "127.0.0.1:0", "--workers", "2"]);
  const [port = 0] = await server.ready();
  const load = await VerifiedLoad.start({
    port,
    connections: 40,
    intervalMs: 20,
    churnPerSecond: 100,
    tagged: true,
    mostMs: 30_000,
    ...options,
  });
  t.after(() => load.kill());
  return { server, load };
}

interface Run {
  readonly reports: readonly LoadReport[];
  /** Over all reports. */
  sum(of: (report: LoadReport) => number): number;
}

/** Lets the load run until the held connections had so many replies, and stops it. */
async function runUntil(load: VerifiedLoad, replies: number): Promise<Run> {
  const reports: LoadReport[] = [];
  const sum: Run["sum"] = (of) => reports.reduce((total, report) => total + of(report), 0);
  await until(`${replies} replies`, async () => {
    reports.push(await load.take());
    return sum(({ held }) => held.verified + held.wrong) >= replies;
  });
  reports.push(await load.stop());
  return { reports, sum };
}

test("a sound server: no fault, every line answered, by two processes of clients", async (t) => {
  const { load, server } = await startRig(t, {}, { processes: 2, connections: 41 });
  assert.equal((await server.status()).totals.open >= 41, true);
  const { reports, sum } = await runUntil(load, 4_000);
  for (const { held, churn, faults } of reports) {
    assert.deepEqual([faultsOf(held), faultsOf(churn), faults], [{}, {}, []]);
  }
  assert.equal(
    sum(({ held }) => held.sent),
    sum(({ held }) => held.verified),
  );
  assert.equal(
    sum(({ churn }) => churn.opened),
    sum(({ churn }) => churn.verified),
  );
  assert.ok(sum(({ churn }) => churn.verified) > 50);
  const { latency } = reports.at(-1)?.held ?? assert.fail();
  assert.ok(latency.p50 <= latency.p99 && latency.p99 <= latency.max && latency.max < 1_000, JSON.stringify(latency));
  await until("the server has seen every client off", async () => (await server.status()).totals.open === 0);
});

test("a killed worker: its own connections are counted as reset, and they come back", async (t) => {
  const { load, server } = await startRig(t);
  const [victim] = (await server.status()).workers;
  assert.ok(victim);
  await load.take();
  process.kill(victim.pid, "SIGKILL");
  await server.logged("its replacement", ({ msg }) => msg === "worker 0 was replaced");
  const { reports, sum } = await runUntil(load, 2_000);
  const cut = sum(({ held }) => held.reset + held.disconnected);
  assert.ok(cut > 5 && cut < 35, `${cut} of 40 were cut`);
  assert.deepEqual(
    reports.flatMap(({ cutByTag }) => Object.entries(cutByTag)).filter(([, count]) => count > 0),
    [[String(victim.pid), cut]],
  );
  assert.equal(
    sum(({ held }) => held.opened),
    cut,
  );
  // Those of the churn that were with it may be told first.
  const faults = reports.flatMap((report) => report.faults);
  const told = /connection \d+: (ECONNRESET|closed) after \d+, \d replies owed/;
  assert.ok(
    faults.some((fault) => told.test(fault)),
    faults.join("\n"),
  );
  assert.equal(
    sum(({ held }) => held.lost + held.wrong + held.repeated),
    0,
  );
});

test("a server that stops: newcomers are refused, those who are there are disconnected in order", async (t) => {
  const { load, server } = await startRig(t);
  server.signal("SIGTERM");
  await server.exit();
  const { held, churn } = await load.stop();
  assert.equal(held.disconnected, 40);
  assert.equal(held.reset + held.lost + held.wrong, 0);
  assert.ok(held.refused + churn.refused > 0);
});

/** Misbehaves with the reply to line 5 of each held connection. */
const WITH_FIVE = (what: string): SteadyOptions => ({
  first: `if (text.split(" ", 2)[1] === "5") { connection.state.count++; ${what} }`,
});

test("a reply that is left out is lost, and no other", async (t) => {
  const { load } = await startRig(t, WITH_FIVE("return;"));
  const { sum } = await runUntil(load, 1_000);
  assert.equal(
    sum(({ held }) => held.lost),
    40,
  );
  assert.equal(
    sum(({ held }) => held.wrong + held.repeated + held.reordered),
    0,
  );
});

test("a reply that comes twice is repeated", async (t) => {
  const { load } = await startRig(t, WITH_FIVE('connection.send(tag + " " + text); return tag + " " + text;'));
  const { sum } = await runUntil(load, 1_000);
  assert.equal(
    sum(({ held }) => held.repeated),
    40,
  );
  assert.equal(
    sum(({ held }) => held.wrong + held.lost + held.reordered),
    0,
  );
});

test("a reply that comes after the next one is reordered", async (t) => {
  const late = "connection.state.late = text; return;";
  const then = 'if (connection.state.late) { connection.send(tag + " " + text); text = connection.state.late; }';
  const options = {
    first: `${WITH_FIVE(late).first} ${then.replace("{", "{ connection.state.count++;")}
    if (connection.state.late) { connection.state.late = undefined; return tag + " " + text; }`,
  };
  const { load } = await startRig(t, options);
  const { sum } = await runUntil(load, 1_000);
  assert.equal(
    sum(({ held }) => held.reordered),
    40,
  );
  assert.equal(
    sum(({ held }) => held.wrong + held.lost + held.repeated),
    0,
  );
});

test("another connection's reply is wrong, and so is a byte", async (t) => {
  const other = 'return tag + " " + text.replace(/^[0-9]+/, "9999");';
  const { load } = await startRig(t, WITH_FIVE(other), { churnPerSecond: 0 });
  const { reports, sum } = await runUntil(load, 1_000);
  assert.equal(
    sum(({ held }) => held.wrong),
    40,
  );
  assert.match(reports.flatMap(({ faults }) => faults)[0] ?? "", /reply 5 is due, wrong: "\d+ 9999 5 /);
});

test("an answer that takes over a second hangs, and its latency is known", async (t) => {
  const { load } = await startRig(
    t,
    WITH_FIVE('return new Promise((done) => setTimeout(() => done(tag + " " + text), 1300));'),
    { churnPerSecond: 20 },
  );
  const { reports, sum } = await runUntil(load, 1_000);
  assert.equal(
    sum(({ held }) => held.hung),
    40,
  );
  const longest = Math.max(...reports.map(({ held }) => held.latency.max));
  assert.ok(longest >= 1_300 && longest < 2_000, `${longest}`);
  assert.equal(
    sum(({ held }) => held.wrong + held.lost + held.repeated),
    0,
  );
});

test("a server that stands still lets connects and answers hang", async (t) => {
  const { load, server } = await startRig(t, {}, { connections: 4 });
  const workers = (await server.status()).workers.map(({ pid }) => pid);
  for (const pid of workers) process.kill(pid, "SIGSTOP");
  let hung = 0;
  await until("all of them hang, and newcomers too", async () => {
    const { held, churn } = await load.take();
    hung += held.hung;
    return hung === 4 && churn.hung > 0;
  });
  for (const pid of workers) process.kill(pid, "SIGCONT");
  const { held, churn } = await load.stop();
  assert.equal(held.lost + held.disconnected + churn.lost, 0);
});
