/** How an engine ends, and what it refuses: on a thread, after its end, inside a round, at process exit. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { Engine } from "#src/engine/engine.js";
import { addon } from "#src/os/addon.js";
import { openDescriptors, sameDescriptors } from "../support/census.js";
import { openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { moduleUrl, runScript } from "../support/script.js";
import { until } from "../support/until.js";

/** An engine with two connections to itself, as globals of a script. */
const PREAMBLE = `
import { Engine } from ${moduleUrl("#src/engine/engine.js")};
import { addon } from ${moduleUrl("#src/os/addon.js")};
import { DEFAULT_SOCKET } from ${moduleUrl("#src/base/settings.js")};
import { packSocketOptions } from ${moduleUrl("#src/os/socket.js")};
import { boundPort } from ${moduleUrl("#src/os/descriptors.js")};
const options = packSocketOptions(DEFAULT_SOCKET);
const engine = new Engine({ slots: 64 });
const fd = addon().socketListen("127.0.0.1", 0, true, options);
const port = boundPort(fd);
const silent = { onOpen() {}, onData() {}, onEnd() {}, onError() {}, onWritable() {}, onBlocked() {} };
const opened = (then) => ({ ...silent, onOpen: then });
`;

test("on a worker thread: a typed error that says what to do", async () => {
  const source = `
    import(${moduleUrl("#src/engine/engine.js")}).then(({ Engine }) => {
      const { parentPort } = require("node:worker_threads");
      try { new Engine(); parentPort.postMessage("opened"); }
      catch (error) { parentPort.postMessage({ name: error.name, code: error.code, message: error.message }); }
    });`;
  const thread = new Worker(source, { eval: true });
  const [answer] = await new Promise<unknown[]>((resolve, reject) => {
    thread.once("message", (...args) => resolve(args));
    thread.once("error", reject);
  });
  await thread.terminate();
  const { message, ...rest } = answer as { message: string };
  assert.deepEqual(rest, { name: "HeadraceError", code: "engine-thread" });
  assert.match(message, /main thread/);
});

test("on a worker thread the addon itself refuses too", async () => {
  const source = `
    Promise.all([import(${moduleUrl("#src/os/addon.js")}), import(${moduleUrl("#src/engine/layout.js")})]).then(([os, layout]) => {
      const memory = {
        header: new Int32Array(8), totals: new Float64Array(64), input: new Uint8Array(1 << 20), output: new Uint8Array(1 << 20),
        inputRecords: new Int32Array(4096 * 4), outputRecords: new Int32Array(4096 * 5),
        generations: new Int32Array(8), unsent: new Int32Array(8), counters: new Float64Array(64),
      };
      require("node:worker_threads").parentPort.postMessage(os.addon().engineOpen(memory, () => {}));
    });`;
  const thread = new Worker(source, { eval: true });
  const answer = await new Promise((resolve, reject) => {
    thread.once("message", resolve);
    thread.once("error", reject);
  });
  await thread.terminate();
  assert.equal(answer, -1);
});

test("shutdown resets the connections and gives every descriptor back but the listener's", async (t) => {
  const before = openDescriptors();
  const loopback = openLoopback(t);
  const peer = await openPeer(t, loopback.port);
  await loopback.nth(0);
  loopback.engine.shutdown();
  loopback.engine.shutdown();
  await until("the reset", () => peer.closed);
  assert.equal(peer.error, "ECONNRESET");
  addon().fdClose(loopback.fd);
  await sameDescriptors(before);
});

test("shut down inside a round: nobody hears anything afterwards", async (t) => {
  const loopback = openLoopback(t, { accepting: true });
  const heardAfter: string[] = [];
  let down = false;
  loopback.on = (recorder) => ({
    onOpen: () => {
      if (down) heardAfter.push("open");
    },
    onData: () => {
      if (down) heardAfter.push("data");
      recorder.send("answer");
      down = true;
      loopback.engine.shutdown();
    },
  });
  const peers = await Promise.all(Array.from({ length: 4 }, () => openPeer(t, loopback.port)));
  await loopback.nth(3);
  for (const peer of peers) peer.write("x");
  await until("the end", () => down && peers.every((peer) => peer.closed));
  assert.deepEqual(heardAfter, []);
});

test("shut down by an accept: connections accepted in the same round are not announced", async (t) => {
  const loopback = openLoopback(t, { accepting: false });
  const clients = await Promise.all(Array.from({ length: 5 }, () => openPeer(t, loopback.port)));
  let announced = 0;
  loopback.engine.listen(0, 0, loopback.fd, {
    onAccept() {
      announced += 1;
      loopback.engine.shutdown();
      return { onOpen() {}, onData() {}, onEnd() {}, onError() {}, onWritable() {}, onBlocked() {} };
    },
    onAcceptError() {},
  });
  await until("the end", () => clients.every((client) => client.closed));
  assert.equal(announced, 1);
});

/** Every call that an owner or a timer may still make when the engine has gone. */
const LATE_CALLS: Record<string, string> = {
  peer: "engine.peer(slot, generation)",
  unread: "engine.unread(slot, generation)",
  send: "engine.submit(slot, generation, engine.reserve(10), 10, true); engine.flush()",
  sendLarge: "engine.sendLarge(slot, generation, new Uint8Array(10))",
  notify: "engine.notifyBelow(slot, generation, 1); engine.flush()",
  pause: "engine.pause(slot, generation); engine.resume(slot, generation); engine.flush()",
  close: "engine.close(slot, generation, 10); engine.flush()",
  reset: "engine.reset(slot, generation); engine.flush()",
  unlisten: "engine.unlisten(0, { queued: true })",
  release: "try { engine.release(slot, generation) } catch {}",
  connect: "try { engine.connect('127.0.0.1', port, '', options, silent) } catch {}",
  listen: "try { engine.listen(1, 1, fd, { onAccept() {}, onAcceptError() {} }) } catch {}",
  adopt: "try { engine.adopt(0, addon().fdDuplicate(fd), silent, { entry: -2 }) } catch {}",
  linger: "engine.linger(0, 10)",
  leave: "engine.leave(0, 1)",
  limit: "try { engine.limit({ words: new Int32Array(99856) }, 0, new Int32Array(65)) } catch {}",
};

for (const [name, call] of Object.entries(LATE_CALLS)) {
  test(`after shutdown ${name} does nothing, and the process ends by itself`, async (t) => {
    const outcome = await runScript(
      t,
      `${PREAMBLE}
      let slot = 0;
      let generation = 0;
      engine.listen(0, 0, fd, {
        onAccept(index, gen) {
          slot = index;
          generation = gen;
          return opened(() => setTimeout(() => {
            engine.shutdown();
            ${call};
            setTimeout(() => console.log("alive"), 20);
          }, 5));
        },
        onAcceptError() {},
      });
      engine.connect("127.0.0.1", port, "", options, silent);`,
    );
    assert.deepEqual(outcome, { code: 0, signal: null, stdout: "alive\n", stderr: "" });
  });
}

for (const [where, leave] of Object.entries({
  "inside a round": "onAccept: () => opened(() => process.exit(0))",
  "outside of rounds": "onAccept: () => opened(() => setTimeout(() => process.exit(0), 5))",
  "by an exit code": "onAccept: () => opened(() => setTimeout(() => { process.exitCode = 0; engine.shutdown(); }, 5))",
})) {
  test(`the process exits with the engine open, ${where}: 0, no crash`, async (t) => {
    const outcome = await runScript(
      t,
      `${PREAMBLE}
      engine.listen(0, 0, fd, { ${leave}, onAcceptError() {} });
      engine.connect("127.0.0.1", port, "", options, silent);`,
    );
    assert.deepEqual(outcome, { code: 0, signal: null, stdout: "", stderr: "" });
  });
}

test("an error that an owner throws is uncaught, not swallowed", async (t) => {
  const outcome = await runScript(
    t,
    `${PREAMBLE}
    engine.listen(0, 0, fd, { onAccept: () => opened(() => { throw new Error("a bug"); }), onAcceptError() {} });
    engine.connect("127.0.0.1", port, "", options, silent);`,
  );
  assert.equal(outcome.code, 1);
  assert.match(outcome.stderr, /Error: a bug/);
});

test("one engine after the other in one process, and two at once", async (t) => {
  const before = openDescriptors();
  for (let i = 0; i < 20; i++) new Engine({ slots: 16 }).shutdown();
  const [a, b] = [openLoopback(t), openLoopback(t)];
  const client = a.connect(b.port);
  client.send("across");
  const served = await b.nth(0);
  await until("bytes", () => served.text === "across");
  for (const loopback of [a, b]) {
    loopback.engine.shutdown();
    addon().fdClose(loopback.fd);
  }
  await sameDescriptors(before);
});

test("collected engines: shut down and dropped, nothing is left and nothing crashes", async (t) => {
  const outcome = await runScript(
    t,
    `import v8 from "node:v8";
    import vm from "node:vm";
    v8.setFlagsFromString("--expose-gc");
    const gc = vm.runInNewContext("gc");
    ${PREAMBLE}
    for (let i = 0; i < 20; i++) {
      new Engine({ slots: 1000 }).shutdown();
      gc();
      await new Promise((resolve) => setImmediate(resolve));
    }
    engine.shutdown();
    console.log("done");`,
  );
  assert.deepEqual(outcome, { code: 0, signal: null, stdout: "done\n", stderr: "" });
});
