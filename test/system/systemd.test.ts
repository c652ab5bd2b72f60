/**
 * The units of deploy/systemd under a real systemd. Where a load runs beside it, its clients know what has to come back
 * and count everything else. What a crash costs is the connections of the moment; a newcomer is never refused.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { openClient } from "../support/client.js";
import { freePort, type InstalledHeadrace, type InstallOptions, installHeadrace } from "../support/systemd/headrace.js";
import { startRig } from "../support/systemd/rig.js";
import { until } from "../support/until.js";
import { faultsOf, type LoadReport, VerifiedLoad } from "../support/verified-load.js";

/** Answers "ms" after so many milliseconds, everything else at once. */
const SLOW = `
export default defineService({
  codec: line(),
  async onMessage(text, { log }) {
    if (!/^\\d+$/.test(text)) return text;
    log.info("asked " + text);
    await new Promise((resolve) => setTimeout(resolve, Number(text)));
    return "after " + text;
  },
});`;

async function started(t: TestContext, options: InstallOptions = {}): Promise<InstalledHeadrace> {
  const server = await installHeadrace(t, options);
  await server.systemctl("start", "headrace");
  return server;
}

/** Held connections that speak all the time, and newcomers. */
async function loaded(t: TestContext, { port }: InstalledHeadrace): Promise<VerifiedLoad> {
  const options = { port, connections: 40, intervalMs: 20, churnPerSecond: 100, mostMs: 120_000 };
  const load = await VerifiedLoad.start(options);
  t.after(() => load.kill());
  return load;
}

/** Nothing at all went wrong, and there was something to go wrong. */
function flawless({ held, churn, faults }: LoadReport): void {
  assert.deepEqual([faultsOf(held), faultsOf(churn), faults], [{}, {}, []]);
  assert.ok(held.verified > 0 && churn.verified > 0);
}

/** The service died: connections were cut, but nobody was refused, and nobody got anything wrong. */
function nobodyRefused({ held, churn, faults }: LoadReport): void {
  for (const side of [held, churn]) {
    const { refused, failed, repeated, reordered, wrong } = side;
    assert.deepEqual(
      { refused, failed, repeated, reordered, wrong },
      { refused: 0, failed: 0, repeated: 0, reordered: 0, wrong: 0 },
      faults.join("\n"),
    );
  }
}

/** The service is back: everybody is answered in time again, and nobody was refused in between. */
async function survived(t: TestContext, load: VerifiedLoad, what: string): Promise<void> {
  const longest: number[] = [];
  const look = async (): Promise<LoadReport> => {
    const report = await load.take();
    nobodyRefused(report);
    longest.push(report.churn.latency.max);
    return report;
  };
  // What was answered before it died says nothing.
  await look();
  await until("the load is answered", async () => {
    const report = await look();
    return report.churn.verified > 0 && report.held.verified > 0 && report.churn.hung + report.held.hung === 0;
  });
  t.diagnostic(`${what}: a newcomer waited ${Math.max(...longest).toFixed(0)} ms at most`);
}

test("the units hold nothing that systemd does not know, and expose little", async (t) => {
  const { rig } = await installHeadrace(t);
  await rig.ok("cp", "/usr/share/headrace/headrace.socket", "/etc/systemd/system/");
  for (const unit of ["headrace.service", "headrace.socket"]) {
    // It returns 0 for an unknown key: what it says counts.
    const { code, stdout, stderr } = await rig.run(["systemd-analyze", "verify", "--man=no", unit]);
    assert.deepEqual([code, stdout, stderr], [0, "", ""]);
  }
  const unit = "/etc/systemd/system/headrace.service";
  const { code, stdout } = await rig.run([
    "systemd-analyze",
    "security",
    "--offline=true",
    "--threshold=15",
    "--no-pager",
    unit,
  ]);
  t.diagnostic(stdout.trim().split("\n").at(-1) ?? "");
  assert.equal(code, 0, stdout);
});

test("start returns when every worker accepts; the store has every socket", async (t) => {
  const server = await started(t, { workers: 3 });
  assert.equal(await (await openClient(t, server.port)).ask("at once"), "at once");
  assert.equal(await server.property("ActiveState"), "active");
  assert.equal(await server.property("NFileDescriptorStore"), "3");
  assert.match(await server.property("StatusText"), /\w/);
  const status = await server.status();
  assert.deepEqual([status.workers.length, status.pid], [3, await server.mainPid()]);
});

test("a bad configuration fails the start, says where, and is not tried again", async (t) => {
  const server = await installHeadrace(t);
  await server.configure("limits: { connections: none }");
  assert.notEqual((await server.rig.run(["systemctl", "start", "headrace"])).code, 0);
  await server.logged(/headrace\.yaml.*connections/);
  assert.deepEqual([await server.property("ExecMainStatus"), await server.property("NRestarts")], ["2", "0"]);
  assert.equal(await server.property("ActiveState"), "failed");
});

test("reload under load: returns when it is done, nobody notices; a broken file fails it and changes nothing", async (t) => {
  const server = await started(t);
  const load = await loaded(t, server);
  const main = await server.mainPid();
  await server.configure("limits: { connections: 5000 }");
  await server.systemctl("reload", "headrace");
  await server.configure("workers: none");
  const refused = await server.rig.run(["systemctl", "reload", "headrace"]);
  assert.notEqual(refused.code, 0);
  await server.logged(/headrace\.yaml.*workers/);
  assert.deepEqual([await server.property("ActiveState"), await server.mainPid()], ["active", main]);
  assert.match(await server.property("StatusText"), /reload failed/);
  await server.configure("limits: { connections: 6000 }");
  await server.systemctl("reload", "headrace");
  assert.equal(await server.property("ActiveState"), "active");
  flawless(await load.stop());
});

test("reload --replace under load: new workers, the same connections", async (t) => {
  const server = await started(t);
  const load = await loaded(t, server);
  const before = await server.status();
  assert.equal((await server.command("reload", "--replace", "--wait")).code, 0);
  const after = await server.status();
  assert.equal(after.pid, before.pid);
  for (const { pid } of after.workers) assert.ok(!before.workers.some((worker) => worker.pid === pid));
  flawless(await load.stop());
});

test("upgrade under load, twice: systemd follows, nobody notices", async (t) => {
  const server = await started(t);
  const load = await loaded(t, server);
  for (const generation of [2, 3]) {
    const main = await server.mainPid();
    const version = await server.release();
    const { code, stderr } = await server.command("upgrade", "--wait");
    assert.equal(code, 0, stderr);
    const now = await server.mainPid();
    assert.notEqual(now, main);
    const status = await server.status();
    assert.deepEqual([status.pid, status.version, status.generation], [now, version, generation]);
    assert.equal(await server.rig.ok("ps", "-o", "ppid=", "-p", String(now)), "1");
    assert.deepEqual([await server.property("ActiveState"), await server.property("NRestarts")], ["active", "0"]);
    assert.doesNotMatch(await server.journal(), /not our child/);
    await until("the predecessor has gone", async () => !(await server.processes()).includes(main));
  }
  assert.equal(await server.property("NFileDescriptorStore"), "2");
  flawless(await load.stop());
});

test("a release that cannot start changes nothing; reload and a good release work afterwards", async (t) => {
  const server = await started(t);
  const load = await loaded(t, server);
  const main = await server.mainPid();
  await server.release('echo "throw new Error(\\"bad release\\");" >dist/worker/worker.js');
  const failed = await server.command("upgrade", "--wait");
  assert.equal(failed.code, 1, failed.stdout);
  assert.deepEqual([await server.mainPid(), await server.property("ActiveState")], [main, "active"]);
  assert.match(await server.property("StatusText"), /upgrade failed/);
  await server.systemctl("reload", "headrace");
  const version = await server.release();
  const { code, stderr } = await server.command("upgrade", "--wait");
  assert.equal(code, 0, stderr);
  assert.equal((await server.status()).version, version);
  flawless(await load.stop());
});

for (const [how, service] of [
  ["by its own command", ""],
  ["by SIGTERM alone", "ExecStop="],
] as const) {
  test(`stop ${how}: what is in flight is answered, exit 0, nothing left`, async (t) => {
    const server = await started(t, { body: SLOW, service });
    const client = await openClient(t, server.port);
    client.send("1500");
    await server.logged(/asked 1500/);
    const stopped = server.systemctl("stop", "headrace");
    assert.equal(await client.line(), "after 1500");
    await stopped;
    await assertStopped(server, how);
  });

  test(`stop ${how} after an upgrade: the new one drains`, async (t) => {
    const server = await started(t, { body: SLOW, service });
    await server.release();
    assert.equal((await server.command("upgrade", "--wait")).code, 0);
    const client = await openClient(t, server.port);
    client.send("1500");
    await server.logged(/asked 1500/);
    const stopped = server.systemctl("stop", "headrace");
    assert.equal(await client.line(), "after 1500");
    await stopped;
    await assertStopped(server, how);
  });

  test(`stop ${how} while the predecessor still drains: it finishes too`, async (t) => {
    const server = await started(t, { body: SLOW, service });
    const old = await openClient(t, server.port);
    old.send("9000");
    await server.logged(/asked 9000/);
    const main = await server.mainPid();
    await server.release();
    assert.equal((await server.command("upgrade", "--wait")).code, 0);
    const client = await openClient(t, server.port);
    client.send("1000");
    await server.logged(/asked 1000/);
    assert.ok((await server.processes()).includes(main), "the predecessor has gone too early for this test");
    const stopped = server.systemctl("stop", "headrace");
    assert.equal(await client.line(), "after 1000");
    assert.equal(await old.line(), "after 9000");
    await stopped;
    await assertStopped(server, how);
  });
}

async function assertStopped(server: InstalledHeadrace, how: string): Promise<void> {
  const names = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts"];
  const values = await Promise.all(names.map((name) => server.property(name)));
  assert.deepEqual(values, ["inactive", "success", "1", "0", "0"]);
  const journal = await server.journal();
  assert.match(journal, how === "by SIGTERM alone" ? /"stopping: SIGTERM"/ : /asked over the control socket/);
  assert.doesNotMatch(journal, /Killing process|SIGKILL|timed out/);
  assert.deepEqual(await server.processes(), []);
  assert.equal((await server.rig.run(["ls", "/run/headrace"])).code, 2);
}

test("restart under load: newcomers queue", async (t) => {
  const server = await started(t);
  const load = await loaded(t, server);
  for (let round = 0; round < 3; round++) {
    const main = await server.mainPid();
    await server.systemctl("restart", "headrace");
    assert.notEqual(await server.mainPid(), main);
    await survived(t, load, "restart");
    assert.equal(await server.property("NFileDescriptorStore"), "2");
  }
  nobodyRefused(await load.stop());
});

test("SIGKILL of the primary under load: newcomers queue until it is back", async (t) => {
  const server = await started(t);
  const load = await loaded(t, server);
  for (let round = 1; round <= 3; round++) {
    await server.signal("KILL");
    await until("it is back", async () => (await server.property("NRestarts")) === String(round));
    await until("it is active", async () => (await server.property("ActiveState")) === "active");
    await survived(t, load, "SIGKILL");
  }
  nobodyRefused(await load.stop());
});

test("SIGKILL of the primary after an upgrade: the store has the sockets still", async (t) => {
  const server = await started(t);
  await server.release();
  const load = await loaded(t, server);
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  flawless(await load.take());
  await server.signal("KILL");
  await until("it is back", async () => (await server.property("NRestarts")) === "1");
  await until("it is active", async () => (await server.property("ActiveState")) === "active");
  await survived(t, load, "SIGKILL after an upgrade");
  nobodyRefused(await load.stop());
});

for (const upgraded of [false, true]) {
  test(`a primary that hangs${upgraded ? " after an upgrade" : ""} is ended by the watchdog and comes back`, async (t) => {
    const server = await started(t, { service: "WatchdogSec=2" });
    if (upgraded) {
      await server.release();
      assert.equal((await server.command("upgrade", "--wait")).code, 0);
    }
    const load = await loaded(t, server);
    const main = await server.mainPid();
    await server.signal("STOP");
    await server.logged(/Watchdog timeout/);
    await until("it is back", async () => (await server.property("NRestarts")) === "1");
    await until("it is active", async () => (await server.property("ActiveState")) === "active");
    assert.notEqual(await server.mainPid(), main);
    await survived(t, load, "watchdog");
    nobodyRefused(await load.stop());
  });
}

test("the watchdog leaves a sound server alone, over reload and upgrade", async (t) => {
  const server = await started(t, { service: "WatchdogSec=1" });
  const begun = Date.now();
  await server.systemctl("reload", "headrace");
  assert.equal((await server.command("reload", "--replace", "--wait")).code, 0);
  await server.release();
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  await until("several times its period has passed", () => Date.now() - begun > 6_000);
  assert.deepEqual([await server.property("NRestarts"), await server.property("ActiveState")], ["0", "active"]);
});

/** The socket unit with other lines in the place of its address, started. */
async function activated(server: InstalledHeadrace, lines: string): Promise<void> {
  const unit = await server.rig.ok("cat", "/usr/share/headrace/headrace.socket");
  await server.rig.write("/etc/systemd/system/headrace.socket", unit.replaceAll(/^ListenStream=.*$/gm, lines));
  await server.rig.ok("systemctl", "daemon-reload");
  await server.systemctl("start", "headrace.socket");
}

for (const [count, workers] of [
  [2, 2],
  [2, 3],
  [3, 2],
] as const) {
  test(`socket activation with ${count} sockets of one address and ${workers} workers: each is accepted from`, async (t) => {
    const server = await installHeadrace(t, { workers });
    await activated(server, `${`ListenStream=127.0.0.1:${server.port}\n`.repeat(count)}ReusePort=yes`);
    await server.systemctl("start", "headrace");
    const clients = await Promise.all(Array.from({ length: 60 }, () => openClient(t, server.port)));
    assert.deepEqual(new Set(await Promise.all(clients.map((client) => client.ask("here")))), new Set(["here"]));
  });
}

test("socket activation: the first client queues while the service starts; a restart refuses nobody", async (t) => {
  const server = await installHeadrace(t);
  await activated(server, `ListenStream=127.0.0.1:${server.port}`);
  assert.equal(await server.property("ActiveState"), "inactive");
  const client = await openClient(t, server.port);
  assert.equal(await client.ask("woken"), "woken");
  assert.equal(await server.property("ActiveState"), "active");
  const load = await loaded(t, server);
  await server.systemctl("restart", "headrace");
  await survived(t, load, "restart with a socket unit");
  await server.release();
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  flawless(await load.take());
  await load.stop();
  await server.systemctl("stop", "headrace");
  const again = await openClient(t, server.port);
  assert.equal(await again.ask("woken again"), "woken again");
});

test("without a socket unit a stopped service refuses", async (t) => {
  const server = await started(t);
  await server.systemctl("stop", "headrace");
  await assert.rejects(openClient(t, server.port), { code: "ECONNREFUSED" });
});

test("requests in flight do not keep newcomers waiting when the primary is killed, nor do those of a predecessor", async (t) => {
  const server = await started(t, { body: SLOW });
  const old = await openClient(t, server.port);
  old.send("9000");
  await server.logged(/asked 9000/);
  await server.release();
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  const client = await openClient(t, server.port);
  client.send("9001");
  await server.logged(/asked 9001/);
  await server.signal("KILL");
  const begun = performance.now();
  await Promise.all([old.closed, client.closed]);
  const newcomer = await openClient(t, server.port);
  assert.equal(await newcomer.ask("new"), "new");
  const waitedMs = performance.now() - begun;
  t.diagnostic(`SIGKILL with requests in flight: a newcomer waited ${waitedMs.toFixed(0)} ms`);
  assert.ok(waitedMs < 5_000);
});

test("a restart with fewer workers and addresses: what the store has too much is closed, and nobody hangs on it", async (t) => {
  const server = await installHeadrace(t, { workers: 3 });
  const other = await freePort();
  await server.configure("", { listeners: `  - { name: other, address: "127.0.0.1:${other}", service: echo-line }` });
  await server.systemctl("start", "headrace");
  assert.equal(await server.property("NFileDescriptorStore"), "6");
  await server.configure("", { workers: 1 });
  await server.systemctl("restart", "headrace");
  await assert.rejects(openClient(t, other), { code: "ECONNREFUSED" });
  const clients = await Promise.all(Array.from({ length: 60 }, () => openClient(t, server.port)));
  assert.deepEqual(new Set(await Promise.all(clients.map((client) => client.ask("here")))), new Set(["here"]));
  await until("the store has what is needed", async () => (await server.property("NFileDescriptorStore")) === "1");
  const again = await Promise.all(Array.from({ length: 60 }, () => openClient(t, server.port)));
  assert.deepEqual(new Set(await Promise.all(again.map((client) => client.ask("here")))), new Set(["here"]));
});

test("notify-reload on a newer systemd: reload and upgrade, without a command in between", async (t) => {
  const server = await installHeadrace(t, { suite: "trixie" });
  t.diagnostic((await server.rig.ok("systemctl", "--version")).split("\n")[0] ?? "");
  const dropIn = "/usr/share/headrace/headrace.service.d/notify-reload.conf";
  await server.rig.ok("cp", dropIn, "/etc/systemd/system/headrace.service.d/");
  await server.rig.ok("systemctl", "daemon-reload");
  const { stdout, stderr } = await server.rig.run(["systemd-analyze", "verify", "--man=no", "headrace.service"]);
  assert.deepEqual([stdout, stderr], ["", ""]);
  await server.systemctl("start", "headrace");
  assert.equal(await server.property("Type"), "notify-reload");
  const load = await loaded(t, server);
  await server.configure("limits: { connections: 5000 }");
  await server.systemctl("reload", "headrace");
  assert.equal((await server.status()).lastChange?.outcome, "done");
  await server.release();
  assert.equal((await server.command("upgrade", "--wait")).code, 0);
  await server.configure("limits: { connections: 6000 }");
  await server.systemctl("reload", "headrace");
  assert.equal((await server.status()).lastChange?.kind, "reload");
  flawless(await load.stop());
  await server.systemctl("stop", "headrace");
  assert.equal(await server.property("Result"), "success");
});

test("a rig leaves nothing behind", async (t) => {
  // What it checks at its end fails this test; the machine's own systemd, if any, is another.
  const rig = await startRig(t);
  assert.equal(await rig.ok("systemctl", "is-system-running"), "running");
});
