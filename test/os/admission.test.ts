/** The cap over several processes of two generations: never above it, at no moment, and nothing leaks. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { AdmissionTable, admissionColumn } from "#src/os/admission-table.js";
import { boundPort, closeDescriptor, openChannel } from "#src/os/descriptors.js";
import { openEngine, openListener, PLAIN_OPTIONS, Recorder } from "../support/loopback.js";
import { moduleUrl } from "../support/script.js";
import { until, within } from "../support/until.js";

const CAP = 40;
/** Generation and seat of each worker: two of one generation and one of the next, in the other half of the columns. */
const SEATS = [
  [1, 0],
  [1, 1],
  [2, 5],
] as const;

/**
 * A worker: accepts from the shared listener (3), counts in the shared table (4), echoes. When it is told to, it gives
 * one connection after the other to the next worker (6), and takes over those of the one before (5).
 */
const WORKER = `
import { Engine } from ${moduleUrl("#src/engine/engine.js")};
import { AdmissionTable, admissionColumn } from ${moduleUrl("#src/os/admission-table.js")};
import { channelWatch, closeDescriptor, receiveMessage, sendMessage } from ${moduleUrl("#src/os/descriptors.js")};
const [generation, seat, moving] = process.argv.slice(1).map(Number);
const table = AdmissionTable.attach(4, -1);
const engine = new Engine({ slots: 1024 });
const caps = new Int32Array(65);
caps[0] = ${CAP};
engine.limit({ words: table.words }, admissionColumn(generation, seat), caps);
const open = [];
let moved = 0;
function own(place) {
  const end = () => {
    open.splice(open.indexOf(place), 1);
    engine.close(place.slot, place.generation, 100);
  };
  open.push(place);
  const onData = (input, from, to) => {
    const at = engine.reserve(to - from);
    input.copy(engine.output, at, from, to);
    engine.submit(place.slot, place.generation, at, to - from, true);
  };
  return { onOpen() {}, onData, onEnd: end, onError: end, onWritable() {}, onBlocked() {} };
}
engine.listen(0, 0, 3, { onAccept: (slot, generation) => own({ slot, generation }), onAcceptError() {} });
const into = Buffer.alloc(16);
function move() {
  const place = open.shift();
  if (place === undefined) return;
  const { fd, unsent, entry } = engine.release(place.slot, place.generation);
  if (unsent.length > 0 || entry !== -1) throw new Error("unexpected");
  if (sendMessage(6, Buffer.from("take"), [fd]) !== "sent") throw new Error("unexpected");
  closeDescriptor(fd);
  moved++;
}
if (moving) {
  channelWatch(5, () => {
    const message = receiveMessage(5, into);
    if (typeof message === "string") return;
    const place = { slot: -1, generation: -1 };
    place.slot = engine.adopt(0, message.fds[0], own(place), { entry: -2 });
    place.generation = engine.generation(place.slot);
    sendMessage(5, Buffer.from("took"), []);
  });
  channelWatch(6, () => {
    while (typeof receiveMessage(6, into) !== "string") engine.leave(0, -1);
  });
  setInterval(move, 1);
}
process.stdin.resume().on("end", () => {
  console.log(moved);
  process.exit(0);
});
console.log("ready");
`;

interface Crew {
  readonly table: AdmissionTable;
  readonly workers: ChildProcess[];
  readonly port: number;
}

async function startCrew(t: TestContext, moving: boolean): Promise<Crew> {
  const listener = openListener(t);
  const table = AdmissionTable.create();
  table.setHighWater(1, 2);
  table.setHighWater(0, 6);
  const channels = SEATS.map(() => openChannel());
  const workers = SEATS.map(([generation, seat], index) => {
    const args = [...process.execArgv, "--input-type=module", "--eval", WORKER];
    const [from, to] = [channels.at(index - 1)?.[1], channels[index]?.[0]];
    const worker = spawn(process.execPath, [...args, String(generation), String(seat), moving ? "1" : "0"], {
      stdio: ["pipe", "pipe", "inherit", listener, table.fd, from as number, to as number],
    });
    t.after(() => worker.kill("SIGKILL"));
    return worker;
  });
  t.after(() => [table.fd, table.wakeFd].forEach(closeDescriptor));
  for (const fd of channels.flat()) closeDescriptor(fd);
  await within("workers", Promise.all(workers.map(({ stdout }) => once(stdout as NodeJS.ReadableStream, "data"))));
  return { table, workers, port: boundPort(listener) };
}

/** Clients of this process: each is admitted, which an echo proves, or refused. */
class Clients {
  readonly admitted = new Set<Recorder>();
  refused = 0;
  readonly #attempt: () => void;
  #attempts = 0;
  #outcomes = 0;

  constructor(t: TestContext, port: number) {
    const engine = openEngine(t, { slots: 4_096 });
    this.#attempt = () => {
      const client: Recorder = new Recorder(engine, {
        onOpen: () => client.send("?"),
        onData: () => {
          this.#outcomes += 1;
          this.admitted.add(client);
        },
        onEnd: () => {
          this.admitted.delete(client);
          client.close();
        },
        onError: () => {
          this.#outcomes += 1;
          this.refused += 1;
          this.admitted.delete(client);
          client.close();
        },
      });
      client.slot = engine.connect("127.0.0.1", port, "", PLAIN_OPTIONS, client);
      client.generation = engine.generation(client.slot);
    };
  }

  async attempt(count: number): Promise<void> {
    this.#attempts += count;
    for (let i = 0; i < count; i++) this.#attempt();
    await until("all outcomes", () => this.#outcomes === this.#attempts);
  }

  closeAll(): void {
    for (const client of this.admitted) client.close();
    this.admitted.clear();
  }
}

/** Ends them; how many connections each has moved. */
async function endCrew(workers: readonly ChildProcess[]): Promise<number[]> {
  const told = workers.map(({ stdout }) => once(stdout as NodeJS.ReadableStream, "data"));
  for (const worker of workers) worker.stdin?.end();
  return (await within("workers", Promise.all(told))).map(([text]) => Number(String(text)));
}

for (const moving of [false, true]) {
  const what = moving ? " while connections move between them" : "";
  test(`three processes at one queue${what}: never above the cap, and every place comes back`, async (t) => {
    const { table, workers, port } = await startCrew(t, moving);
    const clients = new Clients(t, port);
    let most = 0;
    for (let wave = 0; wave < 30; wave++) {
      await clients.attempt(60);
      assert.ok(clients.admitted.size <= CAP, `${clients.admitted.size} admitted`);
      most = Math.max(most, clients.admitted.size);
      clients.closeAll();
      // Every place comes back, also that of a connection that ended on its way.
      await until("an empty table", () => table.count(0) === 0 && table.count(1) === 0);
    }
    assert.ok(clients.refused >= 30 * (60 - CAP));
    assert.ok(most > CAP / 2, `${most} at most`);
    assert.ok(table.words.subarray(16).every((count) => count === 0));
    const moved = await endCrew(workers);
    for (const count of moved) assert.ok(moving ? count > 10 : count === 0, `${moved} moved`);
  });
}

test("a worker that dies leaves its column; cleared by whoever supervises it, its places are free again", async (t) => {
  const { table, workers, port } = await startCrew(t, false);
  const clients = new Clients(t, port);
  for (const [index, [generation, seat]] of SEATS.entries()) {
    while (clients.admitted.size < CAP) await clients.attempt(1);
    const before = table.count(0);
    assert.equal(before, CAP);
    workers[index]?.kill("SIGKILL");
    await once(workers[index] as ChildProcess, "exit");
    assert.equal(table.count(0), before);
    table.clearColumn(admissionColumn(generation, seat));
    // The others' are not touched.
    await until("its clients to notice", () => clients.admitted.size === table.count(0));
  }
  assert.equal(table.count(0), 0);
});
