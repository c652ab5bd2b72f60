/** The cap over several processes: never above it, at no moment, and nothing leaks. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { Scoreboard } from "#src/os/scoreboard.js";
import { openEngine, openListener, PLAIN_OPTIONS, Recorder } from "../support/loopback.js";
import { moduleUrl } from "../support/script.js";
import { until, within } from "../support/until.js";

const WORKERS = 3;
const CAP = 40;

/** A worker: accepts from the shared listener (3) into the shared table (4), tells its count when asked. */
const WORKER = `
import { Engine } from ${moduleUrl("#src/engine/engine.js")};
import { Scoreboard } from ${moduleUrl("#src/os/scoreboard.js")};
const [index, cap] = process.argv.slice(1).map(Number);
const scoreboard = Scoreboard.attach({ workers: ${WORKERS}, listeners: 1 }, 4);
const engine = new Engine({ totals: scoreboard.block(index).head, slots: 1024 });
engine.limit(scoreboard.admission, ${WORKERS}, index, Int32Array.of(cap, 0));
let most = 0;
engine.listen(0, 3, {
  onAccept(slot, generation) {
    const close = () => engine.close(slot, generation, 100);
    let sum = 0;
    for (let i = 0; i < ${WORKERS}; i++) sum += Atomics.load(scoreboard.admission, i);
    return { onOpen() {}, onData() {}, onEnd: close, onError: close, onWritable() {}, onBlocked() {} };
  },
  onAcceptError() {},
});
process.stdin.resume().on("end", () => process.exit(0));
console.log("ready");
`;

test("three processes at one queue: never above the cap, and every place comes back", async (t) => {
  const listener = openListener(t);
  const port = boundPort(listener);
  const scoreboard = Scoreboard.create({ workers: WORKERS, listeners: 1 });
  t.after(() => addon().fdClose(scoreboard.fd));
  const workers = Array.from({ length: WORKERS }, (_, index) => {
    const args = ["--input-type=module", "--eval", WORKER, String(index), String(CAP)];
    const worker = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit", listener, scoreboard.fd] });
    t.after(() => worker.kill("SIGKILL"));
    return worker;
  });
  await within("workers", Promise.all(workers.map(({ stdout }) => once(stdout as NodeJS.ReadableStream, "data"))));

  const engine = openEngine(t);
  const open = new Set<Recorder>();
  let refused = 0;
  let admitted = 0;
  const held = (): number =>
    scoreboard.block(0).get("open") + scoreboard.block(1).get("open") + scoreboard.block(2).get("open");
  let most = 0;
  const attempt = (): void => {
    const recorder = new Recorder(engine, {
      onError: () => {
        refused += 1;
        open.delete(recorder);
        recorder.close();
      },
    });
    recorder.slot = engine.connect("127.0.0.1", port, "", PLAIN_OPTIONS, recorder);
    recorder.generation = engine.generation(recorder.slot);
    open.add(recorder);
  };
  for (let wave = 0; wave < 30; wave++) {
    for (let i = 0; i < 60; i++) attempt();
    // Settled: each was either counted in the table or refused.
    await until("the wave", () => {
      most = Math.max(most, held());
      return held() >= open.size;
    });
    assert.ok(held() <= CAP, `${held()} open`);
    admitted += open.size;
    for (const recorder of [...open]) {
      open.delete(recorder);
      recorder.close();
    }
    await until("all to be gone", () => {
      most = Math.max(most, held());
      return held() === 0;
    });
  }
  assert.ok(most <= CAP, `${most} at once`);
  assert.ok(admitted > 0 && refused > 0);
  await until("an empty table", () => scoreboard.admission.every((count) => count === 0));

  // A worker that dies leaves its column; whoever supervises clears it, and the places are free again.
  for (let i = 0; i < CAP; i++) attempt();
  await until("the cap", () => held() >= open.size && held() > 0);
  workers[0]?.kill("SIGKILL");
  await once(workers[0] as NodeJS.EventEmitter, "exit");
  scoreboard.clearColumn(0);
  assert.equal(scoreboard.admission[0], 0);
  for (const worker of workers.slice(1)) worker.stdin?.end();
  await Promise.all(workers.slice(1).map((worker) => worker.exitCode ?? once(worker, "exit")));
});
