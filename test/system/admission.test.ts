/** Caps of the server and of client addresses, exact at every moment: in a crowd, through a death, over an upgrade. */
import assert from "node:assert/strict";
import { openSync, readdirSync, readlinkSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { AdmissionTable } from "#src/os/admission-table.js";
import { closeDescriptor } from "#src/os/descriptors.js";
import { Crowd, type CrowdOptions } from "../support/crowd.js";
import { writeService } from "../support/folder.js";
import { type Rig, startRig, watchTraces } from "../support/under-load.js";
import { until } from "../support/until.js";

const HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];

/** The server's own counts, as the primary has them mapped. */
function openTable(t: TestContext, pid: number): AdmissionTable {
  const folder = `/proc/${pid}/fd`;
  const fd = readdirSync(folder).find((each) => readlinkSync(`${folder}/${each}`).includes("headrace-admission"));
  const table = AdmissionTable.attach(openSync(`${folder}/${fd}`, "r+"), -1);
  assert.ok(table);
  t.after(() => closeDescriptor(table.fd));
  return table;
}

interface Crowded {
  readonly rig: Rig;
  readonly crowd: Crowd;
  readonly table: AdmissionTable;
  readonly noTraces: () => Promise<void>;
}

async function startCrowd(t: TestContext, limits: object, options: Omit<CrowdOptions, "port">): Promise<Crowded> {
  const rig = await startRig(t, {
    config: { limits, timeouts: { firstByte: "off", idle: "off" } },
    load: false,
    prepare: (folder) =>
      writeService(
        folder,
        "export default defineService({ codec: line(), state: () => ({}), onMessage: () => String(process.pid) });",
      ),
  });
  const table = openTable(t, rig.server.pid);
  return { rig, table, noTraces: watchTraces(rig), crowd: new Crowd(t, { port: rig.port, ...options }) };
}

/** Comes and goes for a while, then fills up: `full` is what must be reached, and never have been exceeded. */
async function fillUp(crowd: Crowd, full: () => boolean): Promise<void> {
  crowd.churn();
  await crowd.attempts(3_000);
  crowd.fill();
  await until("every place is taken", full);
  assert.equal(crowd.figures.violations, 0);
}

async function killWorker(rig: Rig, crowd: Crowd): Promise<void> {
  const [pid = 0] = await rig.workerPids();
  crowd.churn();
  await crowd.attempts(500);
  crowd.lose(pid);
  process.kill(pid, "SIGKILL");
}

async function nothingLeft({ crowd, table, noTraces }: Crowded): Promise<void> {
  await crowd.end();
  await until("an empty table", () => table.count(0) === 0);
  await noTraces();
}

for (const event of ["a death", "an upgrade"] as const) {
  test(`8 processes at once against a cap of 10,000: reached, never passed, also through ${event}`, async (t) => {
    const cap = 10_000;
    const crowded = await startCrowd(t, { connections: cap }, { wanted: 1_600, cap });
    const { rig, crowd } = crowded;
    await fillUp(crowd, () => crowd.held() === cap);
    if (event === "a death") await killWorker(rig, crowd);
    else await rig.command("upgrade", "--wait");
    await fillUp(crowd, () => crowd.held() === cap);
    assert.equal(crowd.most(), cap);
    assert.ok(crowd.figures.refused > 100);
    t.diagnostic(JSON.stringify({ most: crowd.most(), ...crowd.figures }));
    await nothingLeft(crowded);
    const { rejections, totals } = await rig.status();
    assert.ok(rejections["max-connections"] > 0);
    assert.equal(totals.rejected, rejections["max-connections"]);
  });

  test(`the same per address: ${event}`, async (t) => {
    const capPerAddress = 25;
    const crowded = await startCrowd(
      t,
      { connectionsPerAddress: capPerAddress },
      { wanted: 20, capPerAddress, hosts: HOSTS },
    );
    const { rig, crowd } = crowded;
    const full = (): boolean => HOSTS.every((_, host) => crowd.held(host) === capPerAddress);
    await fillUp(crowd, full);
    if (event === "a death") await killWorker(rig, crowd);
    else await rig.command("upgrade", "--wait");
    await fillUp(crowd, full);
    assert.deepEqual(
      HOSTS.map((_, host) => crowd.most(host)),
      HOSTS.map(() => capPerAddress),
    );
    assert.ok((await rig.status()).rejections["per-address"] > 0);
    t.diagnostic(JSON.stringify({ most: HOSTS.map((_, host) => crowd.most(host)), ...crowd.figures }));
    await nothingLeft(crowded);
  });
}
