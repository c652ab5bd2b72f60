/** Shortages: no descriptor, no slot. Accepting rests and recovers; nothing spins or crashes. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { REJECT_REASONS } from "#src/base/reasons.js";
import { WORKER_FIELDS, WORKER_REJECTED } from "#src/os/scoreboard.js";
import { openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { moduleUrl, runScript } from "../support/script.js";
import { until } from "../support/until.js";

test("EMFILE: one client is shed, accepting rests longer each time, and recovers when descriptors are free", async (t) => {
  const outcome = await runScript(
    t,
    `
    import { openSync, closeSync } from "node:fs";
    import { Engine } from ${moduleUrl("#src/engine/engine.js")};
    import { addon } from ${moduleUrl("#src/os/addon.js")};
    import { DEFAULT_SOCKET } from ${moduleUrl("#src/base/settings.js")};
    import { packSocketOptions } from ${moduleUrl("#src/os/socket.js")};
    import { boundPort } from ${moduleUrl("#src/os/descriptors.js")};
    import { errnoName } from ${moduleUrl("#src/os/errno.js")};
    const options = packSocketOptions(DEFAULT_SOCKET);
    const totals = new Float64Array(64);
    const engine = new Engine({ slots: 256, totals });
    const fd = addon().socketListen("127.0.0.1", 0, true, options);
    const owner = (then = () => {}) => ({ onOpen: then, onData() {}, onEnd() {}, onError() {}, onWritable() {}, onBlocked() {} });
    const errors = [];
    let accepted = 0;
    engine.listen(0, 0, fd, { onAccept: () => { accepted++; return owner(); }, onAcceptError: (errno) => errors.push(errnoName(errno)) });
    let reset = 0;
    for (let i = 0; i < 5; i++) {
      const client = { ...owner(), onError() { reset++; engine.close(slot, engine.generation(slot), 0); } };
      const slot = engine.connect("127.0.0.1", boundPort(fd), "", options, client);
    }
    const taken = [];
    try { for (;;) taken.push(openSync("/dev/null")); } catch (error) { if (error.code !== "EMFILE") throw error; }
    const rounds = totals[${WORKER_FIELDS.indexOf("rounds")}];
    const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const began = performance.now();
    while (errors.length < 3) {
      await wait(10);
      // A shed client's descriptor is free again: it must not serve the next one.
      try { for (;;) taken.push(openSync("/dev/null")); } catch (error) { if (error.code !== "EMFILE") throw error; }
    }
    const rested = performance.now() - began;
    const during = totals[${WORKER_FIELDS.indexOf("rounds")}] - rounds;
    const acceptedDuring = accepted;
    for (const each of taken) closeSync(each);
    while (accepted < 2) await wait(10);
    console.log(JSON.stringify({ errors: errors.slice(0, 3), acceptedDuring, reset, few: during < 60,
      longer: rested > 250, shed: totals[${WORKER_REJECTED + REJECT_REASONS.indexOf("descriptors")}],
      counted: totals[${WORKER_FIELDS.indexOf("acceptErrors")}] >= 3 }));
    engine.shutdown();
    `,
    "ulimit -n 64",
  );
  assert.equal(outcome.stderr, "");
  assert.deepEqual(JSON.parse(outcome.stdout), {
    errors: ["EMFILE", "EMFILE", "EMFILE"],
    acceptedDuring: 0,
    reset: 3,
    few: true,
    longer: true,
    shed: 3,
    counted: true,
  });
});

test("no slot is free: the newcomer is reset and counted; a freed slot serves the next", async (t) => {
  const loopback = openLoopback(t, { slots: 2 });
  const first = await openPeer(t, loopback.port);
  const second = await openPeer(t, loopback.port);
  await loopback.nth(1);
  const third = connect(loopback.port, "127.0.0.1");
  const [error] = (await once(third, "error")) as [NodeJS.ErrnoException];
  assert.equal(error.code, "ECONNRESET");
  assert.equal(loopback.totals[WORKER_FIELDS.indexOf("rejected")], 1);
  first.end();
  const served = await loopback.nth(0);
  await until("the end", () => served.ended);
  served.close();
  await until("a free slot", () => loopback.engine.open === 1);
  const fourth = await openPeer(t, loopback.port);
  await loopback.nth(2);
  assert.equal(fourth.closed, false);
  assert.equal(second.closed, false);
});

test("unlisten while resting, and listen again", async (t) => {
  const loopback = openLoopback(t);
  loopback.engine.unlisten(0, { queued: false });
  loopback.engine.unlisten(0, { queued: false });
  const peer = await openPeer(t, loopback.port);
  peer.write("early");
  loopback.engine.listen(0, 0, loopback.fd, {
    onAccept: () => ({ onOpen() {}, onData: () => {}, onEnd() {}, onError() {}, onWritable() {}, onBlocked() {} }),
    onAcceptError() {},
  });
  assert.throws(
    () =>
      loopback.engine.listen(0, 0, loopback.fd, { onAccept: () => loopback.accepted[0] as never, onAcceptError() {} }),
    {
      code: "system",
    },
  );
  await until("the connection", () => loopback.engine.open === 1);
});
