/** Upgrade: a new primary takes over under load and nobody notices; a bad release, at whatever moment, changes nothing. */
import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { openClient } from "../support/client.js";
import type { Outcome } from "../support/command.js";
import { nothingListens } from "../support/processes.js";
import { activate, CURRENT_LISTENER, writeRelease } from "../support/releases.js";
import type { SteadyOptions } from "../support/steady-service.js";
import {
  assertClean,
  type GivenConfig,
  noTrace,
  nothingHappened,
  type Rig,
  startRig,
  stopLoad,
} from "../support/under-load.js";
import { until } from "../support/until.js";
import { faultsOf, type VerifiedLoadOptions } from "../support/verified-load.js";

const UPGRADES = 20;

/** Runs release "1" of `folder/current`. */
function startReleased(
  t: TestContext,
  config: GivenConfig = {},
  load: Partial<VerifiedLoadOptions> | false = {},
  first?: SteadyOptions,
): Promise<Rig> {
  return startRig(t, {
    load,
    config: { listeners: [CURRENT_LISTENER], ...config },
    prepare(folder) {
      writeRelease(folder, "1", first);
      activate(folder, "1");
    },
  });
}

function release(rig: Rig, name: string, options?: SteadyOptions): void {
  writeRelease(rig.folder, name, options);
  activate(rig.folder, name);
}

async function versionOf(rig: Rig): Promise<string> {
  const [version = ""] = (await rig.ask("1 0 x")).split(" ");
  return version;
}

/** The command failed, the first generation serves on as if nothing had been, and nothing of the second is left. */
async function nothingChanged(rig: Rig, outcome: Outcome, why: RegExp): Promise<void> {
  assert.equal(outcome.code, 1, outcome.stdout);
  assert.match(outcome.stderr, why);
  const { pid, generation, state, lastChange } = await rig.status();
  assert.deepEqual([pid, generation, state], [rig.server.pid, 1, "running"]);
  assert.equal(lastChange?.outcome, "failed");
  await until("nothing is left of it", () => rig.server.processes.length === 3);
  assert.equal(await versionOf(rig), "1");
}

describe("upgrade", { concurrency: 2 }, () => {
  describe("under load", () => {
    test(`${UPGRADES} upgrades: no client notices`, async (t) => {
      const rig = await startReleased(t);
      for (let round = 1; round <= UPGRADES; round++) {
        const before = await rig.status();
        release(rig, `r${round}`);
        await rig.command("upgrade", "--wait");
        const after = await rig.status();
        assert.equal(after.generation, round + 1);
        assert.notEqual(after.pid, before.pid);
        assert.equal(await versionOf(rig), `r${round}`);
        await until("the old generation has gone", () => !rig.server.processes.includes(before.pid));
      }
      const { held } = await nothingHappened(rig);
      assert.equal(held.opened, 200, "held connections are never opened again");
    });

    test("SIGUSR2 upgrades too", async (t) => {
      const rig = await startReleased(t);
      const { pid } = await rig.status();
      release(rig, "2");
      rig.server.signal("SIGUSR2");
      assert.deepEqual(await rig.server.exit(), { code: 0, signal: null });
      const after = await rig.status();
      assert.notEqual(after.pid, pid);
      assert.deepEqual([after.generation, after.lastChange?.kind, after.lastChange?.outcome], [2, "upgrade", "done"]);
      assert.equal(await versionOf(rig), "2");
      await nothingHappened(rig);
    });

    test("a release that throws at load, one that dies on trial, then a good one", async (t) => {
      const rig = await startReleased(t, { timeouts: { prove: "1s" } });
      const load = rig.load ?? assert.fail();
      release(rig, "throws", { before: 'throw new Error("no database");' });
      await nothingChanged(rig, await rig.server.command("upgrade", "--wait"), /no database/);
      assertClean(await load.take());
      release(rig, "dies", { before: 'setTimeout(() => { throw new Error("late"); }, 900);' });
      await nothingChanged(rig, await rig.server.command("upgrade", "--wait"), /late|died|ended|exited/i);
      // Those whom it had accepted are cut when it dies; nobody else notices.
      const { held, churn } = await load.take();
      assert.deepEqual(faultsOf(held), {});
      assert.deepEqual([churn.refused, churn.hung, churn.wrong], [0, 0, 0]);
      release(rig, "good");
      await rig.command("upgrade", "--wait");
      assert.equal(await versionOf(rig), "good");
      assert.equal((await rig.status()).generation, 2);
      await nothingHappened(rig);
    });

    test("a new configuration that is wrong is found before anything is started", async (t) => {
      const rig = await startReleased(t);
      rig.configure({ listeners: [CURRENT_LISTENER], limits: { frame: "much" } });
      const outcome = await rig.server.command("upgrade", "--wait");
      assert.equal(outcome.code, 1, outcome.stdout);
      assert.match(outcome.stderr, /limits\.frame/);
      assert.equal((await rig.status()).generation, 1);
      await nothingHappened(rig);
    });

    test("two upgrades at once, and a reload during an upgrade: refused with 75", async (t) => {
      const rig = await startReleased(t, { timeouts: { prove: "1500ms" } });
      release(rig, "2");
      const first = rig.server.command("upgrade", "--wait");
      await until("it upgrades", async () => (await rig.status()).state === "upgrading");
      const [upgrade, reload] = await Promise.all([
        rig.server.command("upgrade", "--wait"),
        rig.server.command("reload", "--wait"),
      ]);
      assert.deepEqual([upgrade.code, reload.code], [75, 75], upgrade.stderr + reload.stderr);
      assert.equal((await first).code, 0);
      assert.equal((await rig.status()).generation, 2);
      await nothingHappened(rig);
    });

    test("while the generation before still drains, the next upgrade is refused with 75", async (t) => {
      const first = 'if (text === "slow") return new Promise((done) => setTimeout(done, 3_000, "slow indeed"));';
      const rig = await startReleased(t, {}, false, { first });
      const client = await openClient(t, rig.port);
      client.send("slow");
      await until("it is asked", async () => (await rig.status()).totals.requests === 1);
      await rig.command("upgrade", "--wait");
      const second = await rig.server.command("upgrade", "--wait");
      assert.equal(second.code, 75, second.stdout);
      assert.match(second.stderr, /drain/);
      assert.equal(await client.line(), "slow indeed");
      await until("it has drained", async () => (await rig.status()).draining.length === 0);
      await rig.command("upgrade", "--wait");
      assert.equal((await rig.status()).generation, 3);
    });

    for (const moment of ["while the new one loads", "while it is on trial"]) {
      test(`SIGTERM during an upgrade, ${moment}: everything ends, in order`, async (t) => {
        const rig = await startReleased(t, { timeouts: { prove: "1500ms" } });
        const loads = moment === "while the new one loads";
        release(rig, "2", loads ? { before: "await new Promise((done) => setTimeout(done, 5_000));" } : {});
        const upgrade = rig.server.command("upgrade", "--wait");
        await until("it upgrades", async () => (await rig.status()).state === "upgrading");
        if (!loads) await until("the new release accepts", async () => (await versionOf(rig).catch(() => "")) === "2");
        rig.server.signal("SIGTERM");
        assert.deepEqual(await rig.server.exit(), { code: 0, signal: null });
        assert.notEqual((await upgrade).code, 0);
        await rig.server.gone();
        await nothingListens(rig.port);
        const { held } = await stopLoad(rig);
        // A line that crossed the server's FIN has no answer; it is owed, not lost.
        assert.deepEqual([held.reset, held.lost, held.wrong], [0, 0, 0]);
      });
    }

    test("after an upgrade the server stops as any other: exit 0, nothing left", async (t) => {
      const rig = await startReleased(t);
      release(rig, "2");
      await rig.command("upgrade", "--wait");
      await rig.server.exit();
      await rig.command("stop", "--wait");
      await rig.server.gone();
      await nothingListens(rig.port);
      const { held } = await stopLoad(rig);
      // A line that crossed the server's FIN has no answer; it is owed, not lost.
      assert.deepEqual([held.reset, held.lost, held.wrong], [0, 0, 0]);
    });

    test("the old primary dies on trial: the new one goes on, or everything ends, but nothing hangs", async (t) => {
      const rig = await startReleased(t, { timeouts: { prove: "2s" } });
      release(rig, "2");
      const upgrade = rig.server.command("upgrade", "--wait");
      await until("it upgrades", async () => (await rig.status()).state === "upgrading");
      await until("the new release accepts", async () => (await versionOf(rig)) === "2");
      rig.server.signal("SIGKILL");
      await upgrade;
      await until("the new one serves alone", async () => {
        const status = await rig.status().catch(() => undefined);
        return status?.generation === 2 && status.state === "running";
      });
      assert.equal(await versionOf(rig), "2");
      await rig.load?.take();
      assertClean(await stopLoad(rig));
      await noTrace(rig);
    });
  });

  // These wait for deadlines of 20 and 60 s, for nothing most of the time: beside each other, and beside the rest.
  describe("a release that never gets ready", { concurrency: 2 }, () => {
    const QUIET = { connections: 20, churnPerSecond: 20 };

    for (const [what, options, why] of [
      ["because it never loads", { before: "await new Promise(() => setInterval(() => {}, 1e6));" }, /20 s/],
      ["because its env never comes", { more: "env: () => new Promise(() => {})," }, /60 s/],
    ] as const) {
      test(what, async (t) => {
        const rig = await startReleased(t, {}, QUIET);
        release(rig, "silent", options);
        await nothingChanged(rig, await rig.server.command("upgrade", "--wait"), why);
        await nothingHappened(rig);
      });
    }
  });
});
