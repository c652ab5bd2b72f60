/** Requests are observed once each, and for as long as they took, however they end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { pino } from "pino";
import { DURATION_BUCKETS, DURATION_BUCKETS_S } from "#src/base/buckets.js";
import { DEFAULT_LIMITS, DEFAULT_TIMEOUTS } from "#src/base/settings.js";
import { line } from "#src/codec/line.js";
import { BufferMemory } from "#src/connection/buffer-memory.js";
import { ServedConnection } from "#src/connection/connection.js";
import { Endpoint } from "#src/connection/endpoint.js";
import { FakeTransport, GENERATION, SLOT } from "#src/connection/fake-transport.js";
import { Gate } from "#src/connection/gate.js";
import { observe, Timing } from "#src/connection/timing.js";
import { Topics } from "#src/connection/topics.js";
import { Wheel } from "#src/connection/wheel.js";
import { Laps } from "#src/engine/laps.js";
import { HEAD_CELLS, LISTENER_DURATIONS, LISTENER_FIELDS, ROW_CELLS } from "#src/os/scoreboard.js";
import { type AnyService, defineService } from "#src/service/define.js";

const SUM = LISTENER_FIELDS.indexOf("durationSum");
const REQUESTS = LISTENER_FIELDS.indexOf("requests");

/** How many are in the bucket of so many seconds, or above them all. */
const bucket = (row: Float64Array, seconds: number): number => {
  const index = (DURATION_BUCKETS_S as readonly number[]).indexOf(seconds);
  return row[LISTENER_DURATIONS + (index < 0 ? DURATION_BUCKETS - 1 : index)] as number;
};
const observed = (row: Float64Array): number =>
  row.subarray(LISTENER_DURATIONS, LISTENER_DURATIONS + DURATION_BUCKETS).reduce((sum, count) => sum + count, 0);

class CountingTransport extends FakeTransport {
  /** Of the clock by which requests are timed. */
  readings = 0;
  override readonly laps: Laps = new Laps(() => {
    this.readings += 1;
    return this.now;
  });
}

/** One connection of `service`, with a clock that handlers and the test move. */
class Tested {
  readonly transport: CountingTransport;
  readonly timing: Timing;
  readonly row: Float64Array = new Float64Array(ROW_CELLS);
  readonly connection: ServedConnection;

  /** `beside`: of the same worker. */
  constructor(service: AnyService, limits: Partial<typeof DEFAULT_LIMITS> = {}, beside?: Tested) {
    this.transport = beside?.transport ?? new CountingTransport({ host: "192.0.2.1", port: 40_000 });
    this.timing = beside?.timing ?? new Timing(this.transport.laps);
    const { transport, row, timing } = this;
    const log = pino({ level: "silent" });
    const head = new Float64Array(HEAD_CELLS);
    const wheel = new Wheel(transport.now, () => Number.POSITIVE_INFINITY);
    const endpoint = new Endpoint({
      ...{ listener: "test", key: "test", index: 0, service, env: undefined, transport, wheel, alarm: wheel, timing },
      memory: new BufferMemory({ transport, budget: 1 << 20, head, log, holders: () => [] }),
      topics: new Topics({ flush() {}, hold() {}, head, log }),
      limits: { ...DEFAULT_LIMITS, ...limits },
      timeouts: DEFAULT_TIMEOUTS,
      ...{ drainMs: 1_000, coalesce: true, row, log, gate: new Gate(), idPrefix: "test", poison: false },
    });
    this.connection = new ServedConnection(endpoint, SLOT, GENERATION);
    this.connection.onOpen();
  }

  /** In a round, what is observed may lag behind: then it is not to be checked. */
  push(text: string, check = true): void {
    const bytes = Buffer.from(text);
    this.connection.onData(bytes, 0, bytes.length);
    if (check) this.check();
  }

  /** Every request waits or was observed. */
  check(): void {
    assert.equal(observed(this.row) + this.timing.inFlight.count, this.row[REQUESTS]);
  }
}

/** Lets promises that are ready go on. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a duration belongs to the first bucket whose bound it does not exceed", () => {
  const row = new Float64Array(ROW_CELLS);
  for (const [index, bound] of DURATION_BUCKETS_S.entries()) {
    observe(row, bound * 1e3);
    assert.equal(row[LISTENER_DURATIONS + index], 1, `${bound}`);
    observe(row, bound * 1e3 * 1.01);
    assert.equal(row[LISTENER_DURATIONS + index + 1], 1, `above ${bound}`);
    row.fill(0);
  }
  observe(row, 0);
  observe(row, 3_600_000);
  assert.deepEqual([bucket(row, 0.00005), bucket(row, Number.POSITIVE_INFINITY), observed(row)], [1, 1, 2]);
  assert.equal(row[SUM], 3_600);
});

for (const rounds of [false, true]) {
  test(`handlers that take their time in the turn, ${rounds ? "within" : "outside"} a round`, () => {
    const service = defineService({
      codec: line(),
      onMessage(text) {
        it.transport.now += Number(text);
        if (text === "3") throw new Error("no reply");
        return text;
      },
      onError: () => ({ reply: "failed" }),
    });
    const it = new Tested(service);
    if (rounds) it.transport.laps.start();
    it.push("0\n0.25\n50\n0\n");
    it.push("3\n");
    assert.equal(bucket(it.row, 0.00005), 2);
    assert.equal(bucket(it.row, 0.00025), 1);
    assert.equal(bucket(it.row, 0.05), 1);
    assert.equal(bucket(it.row, 0.005), 1);
    assert.ok(Math.abs((it.row[SUM] as number) - 0.05325) < 1e-9, `${it.row[SUM]}`);
  });
}

test("what comes between two requests of a round is neither's", () => {
  const it = new Tested(defineService({ codec: line(), onMessage: (text) => text }));
  it.transport.laps.start();
  it.push("one\n");
  it.transport.now += 20;
  // Something else than a request.
  it.transport.laps.forget();
  it.push("two\nthr");
  it.transport.now += 20;
  it.push("ee\n");
  assert.deepEqual([observed(it.row), bucket(it.row, 0.00005)], [3, 3]);
});

/** So many requests that take nothing, in a round of their own. */
function calmDown(it: Tested, requests: number): void {
  it.transport.laps.start();
  for (let nth = 0; nth < requests; nth++) it.push("0\n", false);
  it.transport.laps.stop();
  it.check();
}

test("when all were quick for long, they are timed in groups: the clock is read less, and a slow one still shows", () => {
  const service = defineService({
    codec: line(),
    onMessage: (text) => {
      it.transport.now += Number(text);
      return text;
    },
  });
  const it = new Tested(service);
  const { laps } = it.transport;
  calmDown(it, 2_000);
  it.transport.readings = 0;
  calmDown(it, 800);
  // One of eight, and what the samples of decoding need.
  assert.ok(it.transport.readings <= 1 + 100 + 3 * 14, `${it.transport.readings}`);
  laps.start();
  for (const ms of ["0", "0", "0", "50", "0", "0"]) it.push(`${ms}\n`, false);
  // It was found by the end of the group; from now on each is timed again.
  laps.forget();
  it.check();
  for (const ms of ["0.2", "0.7", "0"]) it.push(`${ms}\n`);
  laps.stop();
  assert.equal(observed(it.row), 2_809);
  assert.deepEqual(
    [0.05, 0.00025, 0.001].map((seconds) => bucket(it.row, seconds)),
    [1, 1, 1],
  );
  assert.ok(Math.abs((it.row[SUM] as number) - 0.0509) < 1e-9, `${it.row[SUM]}`);
});

test("in the midst of a group one waits, and another makes a connection go on within its handler", async () => {
  let resolve: (text: string) => void = () => {};
  const service = defineService({
    codec: line(),
    concurrency: "unordered",
    onMessage: (text) => {
      if (text === "wait") return new Promise<string>((done) => (resolve = done));
      if (text === "nest") other.push("0\n", false);
      return text;
    },
  });
  const it = new Tested(service, { inFlight: 8 });
  const other = new Tested(service, { inFlight: 8 }, it);
  calmDown(it, 600);
  it.transport.laps.start();
  for (const text of ["a", "b", "nest", "c", "wait", "d", "nest"]) it.push(`${text}\n`, false);
  it.transport.laps.stop();
  it.transport.now += 7;
  resolve("done");
  await settle();
  assert.deepEqual([observed(it.row), bucket(it.row, 0.01), observed(other.row)], [607, 1, 2]);
});

for (const concurrency of ["serial", "ordered", "unordered"] as const) {
  test(`${concurrency}: requests that wait are timed from their beginning to their reply`, async () => {
    const open: (() => void)[] = [];
    const service = defineService({
      codec: line(),
      concurrency,
      onMessage: (text) =>
        text === "now"
          ? text
          : new Promise<string>((resolve, reject) =>
              open.push(() => (text === "bad" ? reject(Error()) : resolve(text))),
            ),
      onError: () => ({ reply: "failed" }),
    });
    const it = new Tested(service, { inFlight: 8 });
    it.push("a\n");
    it.transport.now += 30;
    it.push("bad\n");
    it.push("now\n");
    assert.equal(it.timing.oldestSeconds(), 0.03);
    it.transport.now += 40;
    open.shift()?.();
    await settle();
    it.check();
    assert.equal(bucket(it.row, 0.1), 1, "70 ms");
    it.transport.now += 500;
    open.shift()?.();
    await settle();
    it.check();
    // The second began when the first was over, or at once.
    assert.equal(bucket(it.row, concurrency === "serial" ? 0.5 : 1), concurrency === "ordered" ? 2 : 1);
    assert.deepEqual([observed(it.row), it.timing.inFlight.count, it.timing.oldestSeconds()], [3, 0, 0]);
  });
}

test("a connection that ends takes its requests along: observed then, and not once more when they settle", async () => {
  const open: (() => void)[] = [];
  const service = defineService({
    codec: line(),
    concurrency: "unordered",
    onMessage: (text) => new Promise<string>((resolve) => open.push(() => resolve(text))),
  });
  const it = new Tested(service, { inFlight: 8 });
  it.push("a\nb\nc\n");
  it.transport.now += 5;
  open[1]?.();
  await settle();
  it.transport.now += 3;
  it.connection.reset();
  it.check();
  assert.deepEqual([bucket(it.row, 0.005), bucket(it.row, 0.01), it.timing.inFlight.count], [1, 2, 0]);
  for (const resolve of open) resolve();
  await settle();
  assert.equal(observed(it.row), 3);
});

test("a handler that closes its connection and then returns a promise is observed at once", async () => {
  const service = defineService({
    codec: line(),
    onMessage(text, { connection }) {
      connection.close();
      return Promise.resolve(text);
    },
  });
  const it = new Tested(service);
  it.push("a\n");
  await settle();
  assert.deepEqual([observed(it.row), it.timing.inFlight.count], [1, 0]);
});

test("the time of decoding is estimated from some messages, for all of them", () => {
  const codec = line();
  const { decode } = codec;
  codec.decode = function (...args) {
    it.transport.now += 0.01;
    return decode.apply(this, args);
  };
  const it = new Tested(defineService({ codec, onMessage: () => undefined }));
  for (let nth = 0; nth < 61 * 20; nth++) it.push("a\n");
  assert.ok(Math.abs(it.timing.decodeSeconds - 61 * 20 * 1e-5) < 1e-6, `${it.timing.decodeSeconds}`);
});
