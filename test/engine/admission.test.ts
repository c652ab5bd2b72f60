/** The place of a connection in the admission table: taken by accept or by force, kept over a move, given back once. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { REJECT_REASONS } from "#src/base/reasons.js";
import { packRanges } from "#src/config/cidr.js";
import type { ClientRule, Engine } from "#src/engine/engine.js";
import { ENTRY } from "#src/engine/layout.js";
import { addon } from "#src/os/addon.js";
import {
  ADMISSION_COLUMNS,
  ADMISSION_HEADER,
  ADMISSION_ROWS,
  ADMISSION_STAMPS,
  AdmissionTable,
  admissionColumn,
} from "#src/os/admission-table.js";
import { WORKER_FIELDS, WORKER_REJECTED } from "#src/os/scoreboard.js";
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

/** The two words of a column's stamp: when it was renewed, and since when it waits for a place of the row. */
function stampOf({ words }: AdmissionTable, row: number, column: number): Int32Array {
  const at = ADMISSION_STAMPS + (row * ADMISSION_COLUMNS + column) * 2;
  return words.subarray(at, at + 2);
}

/** Columns that wait for a place of the row. */
function waitingColumns(table: AdmissionTable, row: number): number[] {
  return Array.from({ length: ADMISSION_COLUMNS }, (_, column) => column).filter(
    (column) => stampOf(table, row, column)[0] !== 0,
  );
}

/** Loopback with a shared table, whose listener has this rule. */
async function openLimited(
  t: TestContext,
  rule: Partial<ClientRule>,
): Promise<{ loopback: Loopback; table: AdmissionTable; full: ClientRule; served: (count: number) => Promise<void> }> {
  const table = openTable(t);
  t.after(() => addon().fdClose(table.wakeFd));
  const loopback = openLoopback(t);
  loopback.engine.limit(table, admissionColumn(1, 0), capsOf(0));
  const full: ClientRule = {
    connections: "off",
    rate: "off",
    burst: 1,
    space: 0,
    ipv6Prefix: 64,
    onLimit: "reset",
    namedLater: false,
    ...rule,
  };
  loopback.engine.rule(LISTENER, full);
  const served = async (count: number): Promise<void> => {
    await openPeer(t, loopback.port);
    await loopback.nth(count - 1);
  };
  return { loopback, table, full, served };
}

async function refused(loopback: Loopback): Promise<number[]> {
  const before = loopback.totals[REJECTED] as number;
  const client = loopback.connect();
  await until("a rejection", () => (loopback.totals[REJECTED] as number) > before);
  client.close();
  // The last is not the engine's.
  return REJECT_REASONS.slice(0, -1).map((_, index) => loopback.totals[WORKER_REJECTED + index] as number);
}

test("an address has its own limit, which a released connection still holds until it is given back", async (t) => {
  const { loopback, served } = await openLimited(t, { connections: 2 });
  await served(1);
  await served(2);
  assert.deepEqual(await refused(loopback), [0, 0, 1, 0, 0, 0]);
  const released = release(loopback.accepted[0] as Recorder);
  assert.ok(released.entry >= 0);
  assert.deepEqual(await refused(loopback), [0, 0, 2, 0, 0, 0]);
  // Taken back with its place, and given up for good.
  const heir = adopt(loopback.engine, released.fd, released.entry);
  assert.deepEqual(await refused(loopback), [0, 0, 3, 0, 0, 0]);
  heir.reset();
  loopback.engine.flush();
  await served(3);
  const gone = release(loopback.accepted[2] as Recorder);
  addon().fdClose(gone.fd);
  loopback.engine.leave(LISTENER, gone.entry);
  await served(4);
});

test("in another worker it counts there, by the address that it had here", async (t) => {
  const { loopback, table, full, served } = await openLimited(t, { connections: 3 });
  const elsewhere = openEngine(t);
  elsewhere.limit(table, admissionColumn(2, 3), capsOf(0));
  elsewhere.rule(LISTENER, full);
  await served(1);
  await served(2);
  const [first, second] = loopback.accepted as [Recorder, Recorder];
  assert.equal(loopback.engine.admit(second.slot, second.generation, "192.0.2.1", 5), undefined);
  assert.deepEqual(loopback.engine.peer(second.slot, second.generation), { host: "192.0.2.1", port: 5 });
  for (const [moving, peer] of [
    [first, { host: "127.0.0.1", port: 1 }],
    [second, { host: "192.0.2.1", port: 5 }],
  ] as const) {
    const { fd, entry } = release(moving);
    const heir = new Recorder(elsewhere);
    heir.slot = elsewhere.adopt(LISTENER, fd, heir, { entry: ENTRY.notCounted, peer });
    loopback.engine.leave(LISTENER, entry);
    assert.deepEqual(elsewhere.peer(heir.slot, elsewhere.generation(heir.slot)), peer);
  }
  // Of 127.0.0.1 only the first is left, elsewhere: two more fit.
  await served(3);
  await served(4);
  assert.deepEqual(await refused(loopback), [0, 0, 1, 0, 0, 0]);
});

test("admit: the client that a proxy names is listed and counted in the proxy's stead, or refused with the reason", async (t) => {
  const { loopback, full, served } = await openLimited(t, { connections: 2 });
  const { engine } = loopback;
  for (const count of [1, 2]) await served(count);
  assert.deepEqual(await refused(loopback), [0, 0, 1, 0, 0, 0]);
  const [first, second] = loopback.accepted as [Recorder, Recorder];
  const admit = (of: Recorder, host: string): unknown => engine.admit(of.slot, of.generation, host, 1);
  assert.equal(admit(first, "2001:db8::1"), undefined);
  assert.equal(admit(second, "2001:db8::ffff"), undefined);
  // The proxy itself has nobody any more; the client's /64 is full.
  await served(3);
  await served(4);
  assert.equal(admit(loopback.accepted[2] as Recorder, "2001:db8::2"), "per-address");
  assert.equal(engine.peer(loopback.accepted[2]?.slot ?? 0, loopback.accepted[2]?.generation ?? 0).host, "127.0.0.1");
  engine.list(LISTENER, packRanges([{ allow: [], deny: ["192.0.2.0/24"] }]));
  assert.equal(admit(loopback.accepted[2] as Recorder, "192.0.2.7"), "denied");
  engine.rule(LISTENER, { ...full, connections: "off", rate: 1, burst: 1 });
  assert.equal(admit(first, "198.51.100.1"), undefined);
  assert.equal(admit(second, "198.51.100.1"), "rate");
  // One that has gone is nobody's concern.
  first.reset();
  engine.flush();
  assert.equal(admit(first, "192.0.2.7"), undefined);
});

test("behind a proxy nobody is counted or listed before it is named, but everybody has a place", async (t) => {
  const { loopback, table, full, served } = await openLimited(t, { connections: 1, namedLater: true });
  const { engine } = loopback;
  engine.list(LISTENER, packRanges([{ allow: ["192.0.2.0/24"], deny: [] }]));
  for (const count of [1, 2, 3]) await served(count);
  const [first, second, third] = loopback.accepted as [Recorder, Recorder, Recorder];
  const admit = (of: Recorder, host: string): unknown => engine.admit(of.slot, of.generation, host, 1);
  assert.equal(admit(first, "192.0.2.1"), undefined);
  assert.equal(admit(second, "192.0.2.1"), "per-address");
  assert.equal(admit(second, "198.51.100.1"), "denied");
  assert.equal(admit(second, "192.0.2.2"), undefined);
  // A limit that is set anew counts those that are not named yet by the proxy's address; named, they are their client's.
  engine.rule(LISTENER, full);
  assert.equal(admit(third, "192.0.2.3"), undefined);
  engine.limit(table, admissionColumn(1, 0), capsOf(3));
  assert.deepEqual(await refused(loopback), [1, 0, 1, 0, 1, 0]);
});

test("admit: the client that is counted already is itself, not one more", async (t) => {
  const { loopback, full, served } = await openLimited(t, { connections: 1, rate: 1, burst: 1 });
  const { engine } = loopback;
  await served(1);
  const [first] = loopback.accepted as [Recorder];
  const admit = (host: string): unknown => engine.admit(first.slot, first.generation, host, 9);
  assert.equal(admit("127.0.0.1"), undefined);
  assert.deepEqual(engine.peer(first.slot, first.generation), { host: "127.0.0.1", port: 9 });
  assert.equal(admit("2001:db8::1"), undefined);
  assert.equal(admit("2001:db8::2"), undefined, "the same /64");
  assert.deepEqual(engine.peer(first.slot, first.generation), { host: "2001:db8::2", port: 9 });
  engine.list(LISTENER, packRanges([{ allow: [], deny: ["2001:db8::3/128"] }]));
  assert.equal(admit("2001:db8::3"), "denied", "the lists hold for it all the same");
  engine.rule(LISTENER, { ...full, connections: "off", rate: "off" });
  first.reset();
  engine.flush();
});

test("another prefix, another space: who is there is counted anew, also while there is no limit", async (t) => {
  const { loopback, full, served } = await openLimited(t, { connections: 2 });
  const { engine } = loopback;
  const admit = (of: number, host: string): unknown => {
    const { slot, generation } = loopback.accepted[of] as Recorder;
    return engine.admit(slot, generation, host, 1);
  };
  for (const [index, host] of ["2001:db8:0:1::1", "2001:db8:0:2::1", "192.0.2.1"].entries()) {
    await served(index + 1);
    assert.equal(admit(index, host), undefined);
  }
  assert.equal(admit(2, "2001:db8:0:3::1"), undefined);
  assert.equal(admit(2, "192.0.2.1"), undefined);
  engine.rule(LISTENER, { ...full, ipv6Prefix: 48 });
  assert.equal(admit(2, "2001:db8:0:3::1"), "per-address");
  engine.rule(LISTENER, { ...full, ipv6Prefix: 48, space: 5 });
  assert.equal(admit(2, "2001:db8:0:3::1"), "per-address");
  engine.rule(LISTENER, { ...full, connections: "off", space: 5 });
  engine.rule(LISTENER, full);
  assert.equal(admit(2, "2001:db8:0:1::2"), undefined, "one of two");
  for (const each of loopback.accepted) each.reset();
  engine.flush();
  // Nothing is left behind under the keys of before.
  for (const rule of [full, { ...full, ipv6Prefix: 48 }, { ...full, ipv6Prefix: 48, space: 5 }]) {
    const before = loopback.accepted.length;
    engine.rule(LISTENER, rule);
    for (let i = 1; i <= 2; i++) {
      await served(before + i);
      assert.equal(admit(before + i - 1, "2001:db8:0:1::1"), undefined);
    }
    for (const each of loopback.accepted.slice(before)) each.reset();
    engine.flush();
  }
});

test("waiting ends when a rule no longer has newcomers wait", async (t) => {
  const table = openTable(t);
  t.after(() => addon().fdClose(table.wakeFd));
  const loopback = openLoopback(t);
  const { engine } = loopback;
  engine.limit(table, admissionColumn(1, 0), capsOf(1));
  const rule: ClientRule = {
    connections: "off",
    rate: "off",
    burst: 1,
    space: 0,
    ipv6Prefix: 64,
    onLimit: "wait",
    namedLater: false,
  };
  engine.rule(LISTENER, rule);
  await openPeer(t, loopback.port);
  await loopback.nth(0);
  const second = await openPeer(t, loopback.port);
  await until("it waits", () => (table.words[ADMISSION_HEADER.waiting] as number) !== 0);
  engine.rule(LISTENER, { ...rule, onLimit: "close" });
  await until("it is turned away", () => second.ended);
});

/** Engines beside each other, as workers are: each with a socket of its own and one place for all of them together. */
function openWaiting(t: TestContext, engines: number): { table: AdmissionTable; loopbacks: Loopback[] } {
  const table = openTable(t);
  t.after(() => addon().fdClose(table.wakeFd));
  const loopbacks = Array.from({ length: engines }, (_, seat) => {
    const loopback = openLoopback(t);
    loopback.engine.limit(table, admissionColumn(1, seat), capsOf(1));
    loopback.engine.rule(LISTENER, {
      connections: "off",
      rate: "off",
      burst: 1,
      space: 0,
      ipv6Prefix: 64,
      onLimit: "wait",
      namedLater: false,
    });
    return loopback;
  });
  return { table, loopbacks };
}

/** Ends the one connection that is served, and then the next, `count` times; says whose each was. */
async function turns(loopbacks: readonly Loopback[], count: number): Promise<number[]> {
  const order: number[] = [];
  const seen = loopbacks.map(() => 0);
  while (order.length < count) {
    const served = await until("the next one", () => {
      const at = loopbacks.findIndex(({ accepted }, index) => accepted.length > (seen[index] as number));
      if (at < 0) return undefined;
      const index = seen[at] ?? 0;
      seen[at] = index + 1;
      return { at, connection: loopbacks[at]?.accepted[index] as Recorder };
    });
    order.push(served.at);
    served.connection.reset();
    served.connection.engine.flush();
  }
  return order;
}

test("who waits for a place: workers take turns, whoever frees it", async (t) => {
  const { table, loopbacks } = openWaiting(t, 3);
  await openPeer(t, loopbacks[0]?.port ?? 0);
  await loopbacks[0]?.nth(0);
  for (let i = 0; i < 4; i++) for (const { port } of loopbacks) await openPeer(t, port);
  await until("all three wait", () => waitingColumns(table, 0).length === 3);
  const [, ...order] = await turns(loopbacks, 13);
  t.diagnostic(order.join(" "));
  // Those who began to wait within one step of the engine's clock (4 ms) are free to choose, so one may come twice.
  for (const worker of loopbacks.keys()) {
    const count = order.slice(0, 9).filter((each) => each === worker).length;
    assert.ok(count >= 2, `worker ${worker}: ${count} of ${order.slice(0, 9).join(" ")}`);
  }
});

test("who waits and has died, or stands still, holds a place up for a moment only", async (t) => {
  const { table, loopbacks } = openWaiting(t, 1);
  const [own] = loopbacks as [Loopback];
  await openPeer(t, own.port);
  await own.nth(0);
  await openPeer(t, own.port);
  await until("it waits", () => waitingColumns(table, 0).length === 1);
  // Another worker's, which has waited for longer, and is renewed no more from now on.
  const now = Math.floor(own.engine.now);
  stampOf(table, 0, admissionColumn(1, 2)).set([now, now - 10_000]);
  const began = performance.now();
  own.accepted[0]?.reset();
  own.engine.flush();
  await own.nth(1);
  const ms = performance.now() - began;
  assert.ok(ms > 50 && ms < 1_000, `${ms} ms`);
});

test("an elder that waits for a place elsewhere holds nobody up here", async (t) => {
  const { table, loopbacks } = openWaiting(t, 1);
  const [own] = loopbacks as [Loopback];
  const elder = setInterval(() => {
    const now = Math.floor(own.engine.now);
    // Of another listener, which has a cap of its own.
    stampOf(table, 7, admissionColumn(1, 2)).set([now, now - 10_000]);
  }, 10);
  t.after(() => clearInterval(elder));
  await openPeer(t, own.port);
  await own.nth(0);
  await openPeer(t, own.port);
  await until("it waits", () => waitingColumns(table, 0).length === 1);
  const began = performance.now();
  own.accepted[0]?.reset();
  own.engine.flush();
  await own.nth(1);
  assert.ok(performance.now() - began < 45, "at once");
});
