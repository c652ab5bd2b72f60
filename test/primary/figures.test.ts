import assert from "node:assert/strict";
import { test } from "node:test";
import { reasonIndex } from "#src/base/reasons.js";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import type { Config } from "#src/config/config.js";
import { LISTENER_CLOSED, LISTENER_FIELDS, Scoreboard } from "#src/os/scoreboard.js";
import { Figures } from "#src/primary/figures.js";

const listener = {
  name: "lines",
  address: { protocol: "tcp", host: "127.0.0.1", port: 9000 },
  addressText: "127.0.0.1:9000",
  service: { kind: "module", path: "/srv/game.js", given: "./game.js" },
  limits: {},
  timeouts: {},
  socket: DEFAULT_SOCKET,
} as const;
const config: Config = {
  workers: 2,
  listeners: [listener],
  drainMs: 1,
  connections: 10,
  logLevel: "info",
  source: "a test",
};

/** What a worker would have counted. */
function count(scoreboard: Scoreboard, worker: number, active: number, requests: number): void {
  const block = scoreboard.block(worker);
  block.set("accepted", 5);
  block.set("bytesReceived", 100);
  const row = block.row(0);
  row[LISTENER_FIELDS.indexOf("active")] = active;
  row[LISTENER_FIELDS.indexOf("opened")] = 5;
  row[LISTENER_FIELDS.indexOf("requests")] = requests;
  row[LISTENER_CLOSED + reasonIndex("peer-closed")] = 5 - active;
  scoreboard.admission[worker] = active;
}

test("what a dead worker counted stays in the totals; its connections do not", () => {
  const scoreboard = Scoreboard.create({ workers: 2, listeners: 1 });
  const figures = new Figures(config, scoreboard);
  count(scoreboard, 0, 2, 10);
  count(scoreboard, 1, 3, 20);
  const before = figures.totals();
  assert.deepEqual([before.open, before.accepted, before.requests, before.bytesReceived], [5, 10, 30, 200]);
  assert.equal(figures.closes()["peer-closed"], 5);

  figures.retire(0);
  assert.deepEqual(figures.totals(), { ...before, open: 3 });
  assert.equal(figures.worker(0).requests, 0);
  assert.equal(figures.closes()["peer-closed"], 5);
  assert.deepEqual([...scoreboard.admission.subarray(0, 2)], [0, 3]);

  count(scoreboard, 0, 1, 1);
  const [listed] = figures.listeners(["127.0.0.1:9000"]);
  assert.deepEqual(listed, {
    name: "lines",
    address: "127.0.0.1:9000",
    service: "./game.js",
    open: 4,
    opened: 15,
    requests: 31,
  });
});
