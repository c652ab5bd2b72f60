/** The place of a connection in the admission table: taken by accept or by force, kept over a move, given back once. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import type { Engine } from "#src/engine/engine.js";
import { ENTRY } from "#src/engine/layout.js";
import { addon } from "#src/os/addon.js";
import { ADMISSION_ROWS, AdmissionTable, admissionColumn } from "#src/os/admission-table.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { type Loopback, openEngine, openLoopback, Recorder } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const LISTENER = 0;
const REJECTED = WORKER_FIELDS.indexOf("rejected");

function capsOf(total: number, listener = 0): Int32Array {
  const caps = new Int32Array(ADMISSION_ROWS);
  caps[0] = total;
  caps[1 + LISTENER] = listener;
  return caps;
}

function openTable(t: TestContext): AdmissionTable {
  const table = AdmissionTable.create();
  t.after(() => addon().fdClose(table.fd));
  for (const half of [0, 1] as const) table.setHighWater(half, 4);
  return table;
}

interface Counting {
  readonly loopback: Loopback;
  readonly table: AdmissionTable;
  /** Of the server, and of its listener. */
  counts(): number[];
  /** Whether one more client is served; else it is reset. */
  attempt(): Promise<boolean>;
}

function openCounting(t: TestContext, total: number, listener = 0): Counting {
  const table = openTable(t);
  const loopback = openLoopback(t, { accepting: true });
  loopback.engine.limit(table, admissionColumn(1, 0), capsOf(total, listener));
  return {
    loopback,
    table,
    counts: () => [table.count(0), table.count(1 + LISTENER)],
    async attempt() {
      const served = loopback.accepted.length;
      const rejected = loopback.totals[REJECTED] as number;
      // A reset may come while node:net still connects.
      const socket = connect(loopback.port, "127.0.0.1").on("error", () => {});
      t.after(() => socket.destroy());
      await until(
        "an answer",
        () => loopback.accepted.length > served || (loopback.totals[REJECTED] as number) > rejected,
      );
      return loopback.accepted.length > served;
    },
  };
}

const release = (from: Recorder): { fd: number; entry: number } => from.engine.release(from.slot, from.generation);

function adopt(engine: Engine, fd: number, entry: number): Recorder {
  const heir = new Recorder(engine);
  heir.slot = engine.adopt(LISTENER, fd, heir, { entry });
  heir.generation = engine.generation(heir.slot);
  return heir;
}

test("at the cap newcomers are reset; a connection that ends makes room", async (t) => {
  const { loopback, counts, attempt } = openCounting(t, 2);
  await attempt();
  await attempt();
  assert.equal(await attempt(), false);
  assert.deepEqual(counts(), [2, 2]);
  loopback.accepted[1]?.reset();
  loopback.engine.flush();
  assert.deepEqual(counts(), [1, 1]);
  assert.equal(await attempt(), true);
});

test("a released connection keeps its place until it is given back, or taken along", async (t) => {
  const { loopback, counts, attempt } = openCounting(t, 2);
  const { engine } = loopback;
  await attempt();
  await attempt();
  const released = release(loopback.accepted[0] as Recorder);
  assert.equal(released.entry, ENTRY.none);
  assert.deepEqual(counts(), [2, 2]);
  assert.equal(await attempt(), false);
  // Taken back: the same place, not another.
  const heir = adopt(engine, released.fd, ENTRY.none);
  assert.deepEqual(counts(), [2, 2]);
  heir.reset();
  engine.flush();
  assert.deepEqual(counts(), [1, 1]);
  const gone = release(loopback.accepted[1] as Recorder);
  addon().fdClose(gone.fd);
  assert.deepEqual(counts(), [1, 1]);
  engine.leave(LISTENER, ENTRY.none);
  assert.deepEqual(counts(), [0, 0]);
});

test("adopted from elsewhere: counted by force, above the cap too, in its own column", async (t) => {
  const { loopback, table, counts, attempt } = openCounting(t, 2);
  await attempt();
  await attempt();
  const elsewhere = openEngine(t);
  const column = admissionColumn(2, 3);
  elsewhere.limit(table, column, capsOf(2));
  const heirs = loopback.accepted.map((served) => {
    const heir = adopt(elsewhere, release(served).fd, ENTRY.notCounted);
    // Both count it until its last owner lets go: too many for a moment, never too few.
    return heir;
  });
  assert.deepEqual(counts(), [4, 4]);
  assert.deepEqual([table.countHalf(0, 0), table.countHalf(1, 0)], [2, 2]);
  assert.equal(await attempt(), false);
  for (let i = 0; i < 2; i++) loopback.engine.leave(LISTENER, ENTRY.none);
  assert.deepEqual([table.countHalf(0, 0), table.countHalf(1, 0)], [2, 0]);
  assert.equal(await attempt(), false);
  for (const heir of heirs) heir.reset();
  elsewhere.flush();
  assert.deepEqual(counts(), [0, 0]);
  assert.equal(await attempt(), true);
});

test("what cannot be adopted is not counted", async (t) => {
  const { loopback, counts, attempt } = openCounting(t, 5);
  await attempt();
  const { fd } = release(loopback.accepted[0] as Recorder);
  const before = counts();
  assert.throws(() => adopt(loopback.engine, -1, ENTRY.notCounted));
  assert.throws(() => adopt(loopback.engine, -1, ENTRY.none));
  assert.throws(() => loopback.engine.adopt(64, fd, loopback.accepted[0] as Recorder, { entry: ENTRY.notCounted }));
  assert.deepEqual(counts(), before);
  adopt(loopback.engine, fd, ENTRY.none);
  assert.deepEqual(counts(), before);
});

test("an engine that shuts down gives back what it holds, not what was released and is still owed", async (t) => {
  const { loopback, table, counts, attempt } = openCounting(t, 10);
  for (let i = 0; i < 3; i++) await attempt();
  const { fd } = release(loopback.accepted[0] as Recorder);
  loopback.engine.shutdown();
  assert.deepEqual(counts(), [1, 1]);
  loopback.engine.leave(LISTENER, ENTRY.none);
  assert.deepEqual(counts(), [1, 1], "an engine that is closed counts no more");
  table.clearColumn(admissionColumn(1, 0));
  assert.deepEqual(counts(), [0, 0]);
  addon().fdClose(fd);
});

test("caps change while connections are open; the place does not", async (t) => {
  const { loopback, table, attempt } = openCounting(t, 1);
  const { engine } = loopback;
  const column = admissionColumn(1, 0);
  await attempt();
  assert.equal(await attempt(), false);
  engine.limit(table, column, capsOf(3, 2));
  assert.equal(await attempt(), true);
  assert.equal(await attempt(), false, "the listener's own cap");
  engine.limit(table, column, capsOf(3));
  assert.equal(await attempt(), true);
  engine.limit(table, column, capsOf(1));
  assert.equal(await attempt(), false);
  engine.limit(table, column, capsOf(0));
  assert.equal(await attempt(), true);
  const refused = (errno: string) => ({ code: "system", fields: { errno } });
  assert.throws(() => engine.limit(table, admissionColumn(1, 1), capsOf(1)), refused("EBUSY"));
  assert.throws(() => engine.limit(openTable(t), column, capsOf(1)), refused("EBUSY"));
  assert.throws(() => engine.limit(table, column, new Int32Array(2)), refused("EINVAL"));
  assert.throws(() => engine.limit({ words: new Int32Array(100) }, column, capsOf(1)), refused("EINVAL"));
});

test("a seat above the high-water mark is no place to count in: nobody would see it", (t) => {
  const table = openTable(t);
  const engine = openEngine(t);
  table.setHighWater(0, 2);
  assert.throws(() => engine.limit(table, admissionColumn(2, 2), capsOf(1)), { code: "system" });
  engine.limit(table, admissionColumn(2, 1), capsOf(1));
});

test("without a table nothing is counted, and nothing has to be given back", async (t) => {
  const loopback = openLoopback(t);
  await openPeer(t, loopback.port);
  const released = release(await loopback.nth(0));
  assert.equal(released.entry, ENTRY.notCounted);
  loopback.engine.leave(LISTENER, ENTRY.none);
  const heir = adopt(loopback.engine, released.fd, released.entry);
  const again = release(heir);
  assert.equal(again.entry, ENTRY.notCounted);
  addon().fdClose(again.fd);
});
