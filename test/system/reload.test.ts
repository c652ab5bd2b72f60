/** Reload: under load nobody notices; what is wrong changes nothing; each option is applied the way it needs. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { openClient } from "../support/client.js";
import { activate, CURRENT_LISTENER, writeRelease } from "../support/releases.js";
import { writeSteadyService } from "../support/steady-service.js";
import { assertClean, MAIN_LISTENER, noTrace, nothingHappened, startRig, stopLoad } from "../support/under-load.js";
import { until } from "../support/until.js";

const RELOADS = 20;

// The long one takes its time beside the others.
describe("reload", { concurrency: 2 }, () => {
  test(`${RELOADS} reloads that replace every worker: no client notices`, async (t) => {
    const rig = await startRig(t);
    for (let round = 1; round <= RELOADS; round++) {
      const before = await rig.workerPids();
      await rig.command("reload", "--replace", "--wait");
      const after = await rig.workerPids();
      assert.equal(after.length, 2);
      assert.ok(!after.some((pid) => before.includes(pid)), `round ${round}: ${before} → ${after}`);
    }
    const { held } = await nothingHappened(rig);
    assert.equal(held.opened, 200, "held connections are never opened again");
  });

  describe("one at a time", () => {
    test("SIGHUP reloads too, and says what became of it", async (t) => {
      const rig = await startRig(t);
      writeSteadyService(rig.folder, { tag: '"second"' }, "second.mjs");
      rig.configure({ listeners: [{ ...MAIN_LISTENER, service: "./second.mjs" }] });
      rig.server.signal("SIGHUP");
      await until("the reload is done", async () => (await rig.status()).lastChange?.outcome === "done");
      const { lastChange } = await rig.status();
      assert.equal(lastChange?.kind, "reload");
      assert.match(await rig.ask("1 0 x"), /^second /);
      await nothingHappened(rig);
    });

    test("a broken file: the error names line and option, exit 1, and the old configuration serves on", async (t) => {
      const rig = await startRig(t, { config: { limits: { frame: "64KiB" } } });
      const before = await rig.workerPids();
      writeFileSync(
        rig.configFile,
        "workers: 2\nlisteners:\n  - { name: main, address: nowhere, service: ./service.mjs }\n",
      );
      const outcome = await rig.server.command("reload", "--wait");
      assert.equal(outcome.code, 1, outcome.stdout);
      assert.match(outcome.stderr, /headrace\.yaml:3/);
      assert.match(outcome.stderr, /listeners\[0\]\.address/);
      rig.server.signal("SIGHUP");
      const logged = await rig.server.logged("the refusal", ({ level, msg }) => level >= 40 && /reload/.test(msg));
      assert.match(JSON.stringify(logged), /headrace\.yaml:3/);
      assert.deepEqual(await rig.workerPids(), before);
      const { state, lastChange } = await rig.status();
      assert.deepEqual([state, lastChange?.outcome], ["running", "failed"]);
      // A good one afterwards is taken.
      rig.configure({ limits: { frame: "32KiB" } });
      await rig.command("reload", "--wait");
      assert.deepEqual(await rig.workerPids(), before);
      await nothingHappened(rig);
    });

    test("an address is added and removed; a client of the removed one is not cut off", async (t) => {
      const rig = await startRig(t);
      const other = { name: "other", address: "127.0.0.2:0", service: "./service.mjs" };
      rig.configure({ listeners: [MAIN_LISTENER, other] });
      await rig.command("reload", "--wait");
      const { listeners } = await rig.status();
      const address = listeners.find(({ name }) => name === "other")?.address ?? assert.fail("no such listener");
      const port = Number(address.split(":").at(-1));
      const client = await openClient(t, port, "127.0.0.2");
      assert.match(await client.ask("1 0 x"), / 1 0 x$/);
      rig.configure({});
      await rig.command("reload", "--wait");
      await assert.rejects(openClient(t, port, "127.0.0.2"), { code: "ECONNREFUSED" });
      // What is in flight is answered; the connection itself may be asked to leave, in order.
      assert.equal(await client.closed.then((errno) => errno ?? "in order"), "in order");
      assert.deepEqual(
        (await rig.status()).listeners.map(({ name }) => name),
        ["main"],
      );
      await nothingHappened(rig);
    });

    test("limits and deadlines are changed in place: the same workers, at once", async (t) => {
      const rig = await startRig(t);
      const before = await rig.workerPids();
      const held = await openClient(t, rig.port);
      assert.match(await held.ask("1 0 x"), / 1 0 x$/);
      rig.configure({ limits: { frame: "300" }, timeouts: { firstByte: "200ms" } });
      await rig.command("reload", "--wait");
      assert.deepEqual(await rig.workerPids(), before);
      held.send("1 1 ".padEnd(400, "x"));
      await held.closed;
      const silent = await openClient(t, rig.port);
      const openedAt = Date.now();
      await silent.closed;
      assert.ok(Date.now() - openedAt < 1_500, `closed after ${Date.now() - openedAt} ms`);
      const { closes } = await rig.status();
      assert.equal(closes["frame-too-large"], 1);
      assert.equal(closes["first-byte-timeout"], 1);
      await nothingHappened(rig);
    });

    test("another service: every worker is replaced, and the connections stay, with their state", async (t) => {
      const rig = await startRig(t);
      const before = await rig.workerPids();
      writeSteadyService(rig.folder, { tag: '"second"' }, "second.mjs");
      rig.configure({ listeners: [{ ...MAIN_LISTENER, service: "./second.mjs" }] });
      const held = await openClient(t, rig.port);
      assert.match(await held.ask("1 0 x"), /^\d+ 1 0 x$/);
      await rig.command("reload", "--wait");
      assert.equal(await held.ask("1 1 x"), "second 1 1 x");
      held.socket.end();
      assert.ok(!(await rig.workerPids()).some((pid) => before.includes(pid)));
      await nothingHappened(rig);
    });

    test("a service that throws: exit 1 with its own words, everything as before, and the next reload works", async (t) => {
      const rig = await startRig(t);
      const before = await rig.workerPids();
      writeSteadyService(rig.folder, { before: 'throw new Error("no database");' }, "second.mjs");
      const listeners = [{ ...MAIN_LISTENER, service: "./second.mjs" }];
      rig.configure({ listeners });
      const outcome = await rig.server.command("reload", "--wait");
      assert.equal(outcome.code, 1);
      assert.match(outcome.stderr, /no database/);
      assert.deepEqual(await rig.workerPids(), before);
      writeSteadyService(rig.folder, { tag: '"third"' }, "second.mjs");
      await rig.command("reload", "--wait");
      assert.match(await rig.ask("1 0 x"), /^third /);
      await nothingHappened(rig);
    });

    test("a service that dies once it accepts: the reload is rolled back to the old one", async (t) => {
      const rig = await startRig(t);
      writeSteadyService(
        rig.folder,
        {
          tag: '"second"',
          before: 'setInterval(() => { if (globalThis.served) throw new Error("late"); }, 20);',
          first: "globalThis.served = true;",
        },
        "second.mjs",
      );
      rig.configure({ listeners: [{ ...MAIN_LISTENER, service: "./second.mjs" }] });
      const outcome = await rig.server.command("reload", "--wait");
      assert.equal(outcome.code, 1, outcome.stdout);
      const healthy = async (): Promise<boolean> => {
        const { state, workers } = await rig.status();
        return state === "running" && workers.length === 2 && workers.every((worker) => worker.state === "accepting");
      };
      await until("the old service is back", healthy);
      await rig.load?.take();
      for (let client = 0; client < 8; client++) {
        assert.match(await rig.ask("1 0 x"), /^\d+ 1 0 x$/);
      }
      // Those whom the bad service had accepted were cut; from now on nothing happens.
      assertClean(await stopLoad(rig));
      await noTrace(rig);
    });

    test("a second reload while one is under way is refused with 75", async (t) => {
      const rig = await startRig(t, { service: { before: "await new Promise((done) => setTimeout(done, 500));" } });
      const first = rig.server.command("reload", "--replace", "--wait");
      await until("it reloads", async () => (await rig.status()).state === "reloading");
      const second = await rig.server.command("reload", "--replace", "--wait");
      assert.equal(second.code, 75, second.stderr);
      assert.equal((await first).code, 0);
      await nothingHappened(rig);
    });

    test("workers started by a reload run the release that was pinned at start", async (t) => {
      const prepare = (folder: string): void => {
        writeRelease(folder, "1");
        activate(folder, "1");
      };
      const rig = await startRig(t, { config: { listeners: [CURRENT_LISTENER] }, prepare });
      writeRelease(rig.folder, "2");
      activate(rig.folder, "2");
      await rig.command("reload", "--replace", "--wait");
      assert.match(await rig.ask("1 0 x"), /^1 /);
      await nothingHappened(rig);
    });
  });
});
