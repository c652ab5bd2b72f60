/** More and fewer workers under load: nobody notices, and a newcomer gets its share. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { nothingHappened, type Rig, startRig } from "../support/under-load.js";
import { until } from "../support/until.js";

const ROUNDS = 10;

async function openByWorker(rig: Rig): Promise<number[]> {
  return (await rig.status()).workers.map(({ open }) => open);
}

test(`1 → 4 → 1 workers, ${ROUNDS} times: no client notices`, async (t) => {
  const rig = await startRig(t, { config: { workers: 1 } });
  for (let round = 1; round <= ROUNDS; round++) {
    for (const workers of [4, 1]) {
      await rig.command("scale", String(workers), "--wait");
      assert.equal((await rig.status()).workers.length, workers);
    }
  }
  const { held } = await nothingHappened(rig);
  assert.equal(held.opened, 200, "held connections are never opened again");
});

test("a new worker receives a fair share of the long connections", async (t) => {
  const rig = await startRig(t, { config: { workers: 1 } });
  await rig.command("scale", "2", "--wait");
  const fair = async (): Promise<boolean> => (await openByWorker(rig)).every((open) => open >= 80 && open <= 130);
  await until("about 100 of 200 each", fair).catch(async () => assert.fail(`shares: ${await openByWorker(rig)}`));
  await rig.command("scale", "1", "--wait");
  await until("all are back", async () => (await openByWorker(rig)).every((open) => open >= 200));
  await nothingHappened(rig);
});

test("TTIN and TTOU add and take away one worker", async (t) => {
  const rig = await startRig(t);
  const count = async (): Promise<number> =>
    (await rig.status()).workers.filter(({ state }) => state === "accepting").length;
  const idle = async (): Promise<boolean> => (await rig.status()).state === "running";
  rig.server.signal("SIGTTIN");
  await until("three workers", async () => (await count()) === 3 && (await idle()));
  rig.server.signal("SIGTTOU");
  await until("two workers", async () => (await rig.status()).workers.length === 2 && (await idle()));
  await nothingHappened(rig);
});

test("a number of workers that cannot be is refused, and names what is allowed", async (t) => {
  const rig = await startRig(t, { load: false });
  for (const given of ["0", "257", "many"]) {
    const outcome = await rig.server.command("scale", given, "--wait");
    assert.equal(outcome.code, 2, `${given}: ${outcome.stderr}`);
    assert.match(outcome.stderr, /256/);
  }
  assert.equal((await rig.status()).workers.length, 2);
});

test("fewer workers than can hold the connections: refused before anything is done, naming the limit", async (t) => {
  const rig = await startRig(t);
  // What the workers have room for is judged by the primary's own limit, which theirs are inherited from.
  execFileSync("prlimit", ["--pid", String(rig.server.pid), "--nofile=400:400"]);
  const outcome = await rig.server.command("scale", "1", "--wait");
  assert.equal(outcome.code, 1, outcome.stdout);
  assert.match(outcome.stderr, /2\d\d connections do not fit 1 worker: .*400 descriptors.*RLIMIT_NOFILE/);
  assert.equal((await rig.status()).workers.length, 2);
  await nothingHappened(rig);
});
