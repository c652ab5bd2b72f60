/** Two instances behind a real HAProxy: one is upgraded while the other drains and ends, and no client notices. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { type Instance, startTwoInstances, statOf } from "../support/balancers.js";
import { activate, CURRENT_LISTENER, writeRelease } from "../support/releases.js";
import { runScript, startScript } from "../support/runbook.js";
import { assertClean, type Rig, startRig } from "../support/under-load.js";
import { until } from "../support/until.js";
import { VerifiedLoad } from "../support/verified-load.js";

const HELD = 40;
const LISTENER = { ...CURRENT_LISTENER, proxyProtocol: { trust: ["127.0.0.1"] } };

async function instanceOf(rig: Rig): Promise<Instance> {
  const { admin = "" } = await rig.status();
  return { port: rig.port, admin: Number(admin.split(":").at(-1)) };
}

test("one instance is upgraded while the other drains and stops: no client notices", async (t) => {
  const start = (): Promise<Rig> =>
    startRig(t, {
      load: false,
      config: { listeners: [LISTENER], admin: { address: "127.0.0.1:0" } },
      prepare(folder) {
        writeRelease(folder, "1");
        activate(folder, "1");
      },
    });
  const [one, two] = [await start(), await start()];
  const balancer = await startTwoInstances(t, await instanceOf(one), await instanceOf(two));
  const stat = (name: string): Promise<Readonly<Record<string, string>>> => statOf(balancer.socket, `headrace/${name}`);
  const load = async (connections: number): Promise<VerifiedLoad> => {
    const options = { port: balancer.port, connections, intervalMs: 100, churnPerSecond: 40, tagged: true };
    const started = await VerifiedLoad.start({ ...options, mostMs: 120_000 });
    t.after(() => started.kill());
    return started;
  };
  for (const name of ["one", "two"]) await until(`${name} is up`, async () => (await stat(name)).status === "UP");
  const first = await load(HELD);
  for (const name of ["one", "two"]) {
    assert.ok(Number((await stat(name)).scur) >= HELD / 4, `${name} has its share of ${HELD}`);
  }

  const drain = ["--haproxy", balancer.socket, "--server", "headrace/two"];
  const draining = startScript("drain-host.sh", [...drain, "--within", "100", "--stop"], two.server);
  await until("two drains", async () => (await stat("two")).status === "DRAIN");
  const held = Number((await stat("two")).scur);
  const { stot } = await stat("two");
  writeRelease(one.folder, "2");
  const upgrade = await runScript(
    "upgrade.sh",
    [join(one.folder, "releases", "2"), "--link", join(one.folder, "current")],
    one.server,
  );
  assert.equal(upgrade.code, 0, upgrade.stderr);
  const [ofOne, ofTwo] = [await stat("one"), await stat("two")];
  for (const { svname, status, scur, stot: all } of [ofOne, ofTwo]) t.diagnostic(`${svname} ${status} ${scur} ${all}`);
  // By its readiness, not only because something accepts.
  assert.deepEqual([ofOne.status, ofOne.check_status, ofOne.check_code], ["UP", "L7OK", "200"]);
  // Its clients stay, nobody new comes.
  assert.deepEqual([ofTwo.status, ofTwo.stot], ["DRAIN", stot]);
  assert.ok(held > 0 && Number(ofTwo.scur) > 0);

  // Others go on while these leave by themselves: then two stops.
  const second = await load(HELD);
  assertClean(await first.stop(100));
  const drained = await draining.ended;
  assert.equal(drained.code, 0, drained.stderr);
  assert.match(drained.stdout, /nobody is connected\nstopped: 0 connections closed, 0 cut off/);
  assert.deepEqual(await two.server.exit(), { code: 0, signal: null });
  assertClean(await second.stop(100));
  assert.equal((await one.status()).generation, 2);

  // Back into the balancer, which sends it nobody as long as nobody answers there.
  const back = await runScript("drain-host.sh", [...drain, "--back"]);
  assert.equal(back.code, 0, back.stderr);
  await until("two is seen to be down", async () => (await stat("two")).status === "DOWN");
  const wrong = await runScript(
    "drain-host.sh",
    ["--haproxy", balancer.socket, "--server", "headrace/none"],
    one.server,
  );
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /HAProxy: No such server/);

  // A server that does not answer is taken out nevertheless.
  const mute = ["--haproxy", balancer.socket, "--server", "headrace/one", "--stop"];
  const uncounted = await runScript("drain-host.sh", mute, { control: join(one.folder, "none.sock") });
  assert.equal(uncounted.code, 3, uncounted.stderr);
  assert.match(uncounted.stderr, /its clients cannot be counted, and nothing was stopped/);
  assert.equal((await stat("one")).status, "DRAIN");
});
