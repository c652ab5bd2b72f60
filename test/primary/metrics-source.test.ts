/** Metrics of a real primary with real workers, read over HTTP as Prometheus does. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { FAMILIES } from "#src/admin/metrics.js";
import { openClient } from "../support/client.js";
import { COUNTING, writeCountingService } from "../support/counting-service.js";
import { type MetricsRig, startMetricsRig } from "../support/metrics-rig.js";
import { until } from "../support/until.js";

const LINES = { name: "lines", address: "127.0.0.1:0", service: "echo-line" };

/** One message. Resolves with the pid of the worker that answered it. */
async function say(t: TestContext, port: number, text: string): Promise<number> {
  const client = await openClient(t, port);
  const pid = Number(await client.ask(text));
  client.socket.end();
  return pid;
}

/** Messages until each worker has had one. */
async function sayToEach(t: TestContext, rig: MetricsRig, text: string): Promise<number> {
  const seen = new Set<number>();
  let count = 0;
  while (seen.size < rig.primary.crew.owners.length) {
    seen.add(await say(t, rig.ports[0] ?? 0, text));
    count++;
  }
  return count;
}

test("every family is told, with its type, its help and its labels", async (t) => {
  const rig = await startMetricsRig(t, {
    workers: 2,
    listeners: [LINES, { name: "feed", address: "udp://127.0.0.1:0", service: "echo-udp" }],
  });
  const shown = await rig.scrape();
  assert.deepEqual(
    [...shown.families.keys()],
    FAMILIES.map(({ name }) => name),
  );
  for (const { name, type, help, labels } of FAMILIES) {
    const family = shown.families.get(name) ?? assert.fail(name);
    assert.deepEqual([family.type, family.help], [type, help]);
    // Only with TLS.
    if (/_tls_/.test(name)) continue;
    assert.ok(family.samples.size > 0, name);
    for (const series of family.samples.keys()) {
      const told = [...series.matchAll(/(\w+)="/g)].map(([, label]) => label).filter((label) => label !== "le");
      assert.deepEqual(told, [...labels], series);
    }
  }
  assert.equal(shown.sum("headrace_ready"), 1);
  assert.equal(shown.sum("headrace_workers", { state: "accepting" }), 2);
  assert.equal(shown.sum("headrace_build_info", { version: "0.0.0-test", node: process.version }), 1);
  for (const process of ["primary", "0", "1"]) {
    for (const name of ["cpu_seconds_total", "memory_bytes", "max_fds"]) {
      assert.ok((shown.sum(`headrace_${name}`, { process }) ?? 0) > 0, `${name} ${process}`);
    }
  }
});

test("connections and requests are counted, and come out even", async (t) => {
  const rig = await startMetricsRig(t, { workers: 1, listeners: [LINES] });
  const [port = 0] = rig.ports;
  const staying = await openClient(t, port);
  for (const text of ["a", "b"]) {
    assert.equal(await staying.ask(text), text);
  }
  const leaving = await openClient(t, port);
  leaving.socket.end();
  const shown = await until("one has left", async () => {
    const now = await rig.scrape();
    return now.sum("headrace_connections_closed_total", { reason: "peer-closed" }) === 1 ? now : undefined;
  });
  const pair = { worker: "0", listener: "lines" };
  assert.equal(shown.sum("headrace_connections_accepted_total", pair), 2);
  assert.equal(shown.sum("headrace_active_connections", pair), 1);
  assert.equal(shown.sum("headrace_requests_total", pair), 2);
  assert.equal(shown.sum("headrace_bytes_received_total", { worker: "0" }), 4);
});

test("the accept queue of a worker that stands still is seen, and its limit", async (t) => {
  const rig = await startMetricsRig(t, { workers: 1, listeners: [LINES], socket: { backlog: 7 } });
  const worker = rig.primary.crew.owners[0] ?? assert.fail();
  process.kill(worker.pid, "SIGSTOP");
  t.after(() => worker.kill());
  const waiting = [1, 2, 3].map(() => connect(rig.ports[0] ?? 0, "127.0.0.1").on("error", () => {}));
  t.after(() => waiting.map((socket) => socket.destroy()));
  await until(
    "three wait",
    async () => (await rig.scrape()).sum("headrace_listen_queue_length", { listener: "lines" }) === 3,
  );
  assert.equal((await rig.scrape()).sum("headrace_listen_queue_limit", { worker: "0", listener: "lines" }), 7);
});

test("a service's own metrics appear, of all workers together, whichever copy of prom-client it has", async (t) => {
  const folder = writeCountingService(t);
  const rig = await startMetricsRig(t, COUNTING, folder);
  const count = await sayToEach(t, rig, "hey");
  const shown = await rig.scrape();
  assert.equal(shown.sum("game_messages_total", { kind: "hey" }), count);
  assert.equal(shown.sum("game_workers"), 2);
  assert.equal(shown.sum("game_highest"), Math.max(...rig.primary.crew.owners.map(({ pid }) => pid)));
  assert.deepEqual(
    [...(shown.families.get("game_size") ?? assert.fail()).samples],
    [
      ['game_size_bucket{le="2"}', 0],
      ['game_size_bucket{le="4"}', count],
      ['game_size_bucket{le="+Inf"}', count],
      ["game_size_sum", 3 * count],
      ["game_size_count", count],
    ],
  );
  assert.equal(shown.sum("headrace_scrape_incomplete"), 0);
});

test("what a worker's service counted stays when the worker dies", async (t) => {
  const folder = writeCountingService(t);
  const rig = await startMetricsRig(t, COUNTING, folder);
  const before = await sayToEach(t, rig, "one");
  assert.equal((await rig.scrape()).sum("game_messages_total"), before);
  const victim = rig.primary.crew.owners[0] ?? assert.fail();
  victim.kill();
  await victim.exited;
  assert.equal((await rig.scrape()).sum("game_messages_total"), before);
  await until("it is replaced", () => rig.primary.crew.accepting.length === 2);
  assert.equal((await rig.scrape()).sum("game_messages_total"), before);
  const after = await sayToEach(t, rig, "two");
  const shown = await rig.scrape();
  assert.equal(shown.sum("game_messages_total"), before + after);
  assert.equal(shown.sum("game_size_count"), before + after);
  assert.equal(shown.sum("game_workers"), 2, "gauges are those of the living");
});

test("names of ours and too many series are left out, each with one warning", async (t) => {
  const folder = writeCountingService(
    t,
    `new client.Gauge({ name: "headrace_ready", help: "Mine" }).set(7);
     const many = new client.Gauge({ name: "game_many", help: "Many", labelNames: ["n"] });
     for (let n = 0; n < 1001; n++) many.set({ n }, n);`,
  );
  const rig = await startMetricsRig(t, COUNTING, folder);
  await rig.scrape();
  const shown = await rig.scrape();
  assert.equal(shown.sum("headrace_ready"), 1);
  assert.equal(shown.sum("game_many"), undefined);
  assert.equal(shown.sum("game_workers"), 2);
  assert.equal(shown.sum("headrace_user_metrics_left_out"), 2);
  const warnings = rig.logged.filter((line) => line.includes("left out"));
  assert.equal(warnings.length, 2, warnings.join("\n"));
  assert.match(warnings.join("\n"), /headrace_ready.*headrace_ are its own/);
});

test("a worker that hangs holds up no scrape for long, and its counts do not go back", async (t) => {
  const folder = writeCountingService(t);
  const rig = await startMetricsRig(t, { ...COUNTING, timeouts: { hang: "off" } }, folder);
  const count = await sayToEach(t, rig, "one");
  assert.equal((await rig.scrape()).sum("game_messages_total"), count);
  const hung = rig.primary.crew.owners[1] ?? assert.fail();
  process.kill(hung.pid, "SIGSTOP");
  t.after(() => hung.kill());
  const began = performance.now();
  const shown = await rig.scrape();
  assert.ok(performance.now() - began < 5_000, "half a second, on a machine that is not busy");
  assert.equal(shown.sum("headrace_scrape_incomplete"), 1);
  assert.equal(shown.sum("game_messages_total"), count);
  assert.equal(shown.sum("game_workers"), 1);
  process.kill(hung.pid, "SIGCONT");
  await until("it answers again", async () => (await rig.scrape()).sum("headrace_scrape_incomplete") === 0);
});

test("a collect() that never ends is called once, and only that worker's service is missing", async (t) => {
  const folder = writeCountingService(
    t,
    `let calls = 0;
     new client.Gauge({ name: "game_slow", help: "Slow", collect: () => new Promise(() => { if (++calls > 1) process.exit(3); }) });`,
  );
  const rig = await startMetricsRig(t, COUNTING, folder);
  for (let round = 0; round < 2; round++) {
    const shown = await rig.scrape();
    assert.equal(shown.sum("headrace_scrape_incomplete"), 2);
    assert.equal(shown.sum("game_workers"), undefined);
    assert.equal(shown.sum("headrace_ready"), 1);
  }
  assert.equal(rig.primary.crew.accepting.length, 2);
});
