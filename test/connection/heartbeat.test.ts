/** Heartbeats, by the manual clock: who is pinged and when, who is given up, and what neither of the two extends. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Timeouts } from "#src/base/settings.js";
import { line } from "#src/codec/line.js";
import { type TestConnection, type TestConnectionOptions, testConnection } from "#src/connection/harness.js";
import { defineService, type Service } from "#src/service/define.js";
import { openPeer } from "../support/peer.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

const OFF = { firstByte: "off", frame: "off", idle: "off", writeStall: "off", ageJitter: "off" } as const;
const TICK = 50;

interface Options extends TestConnectionOptions<undefined> {
  readonly missed?: number;
}

const handled: string[] = [];

function beating({ missed, ...options }: Options = {}): TestConnection<undefined, string | Uint8Array, undefined> {
  const service: Service<undefined, string, string | Uint8Array, undefined> = defineService({
    codec: line(),
    heartbeat: { ...(missed ? { missed } : {}), ping: () => "ping", isPong: (text: string) => text === "pong" },
    onMessage: (text: string): string | undefined => {
      handled.push(text);
      return text.startsWith("quiet") ? undefined : text;
    },
  });
  return testConnection(service, { ...options, timeouts: { ...OFF, ...options.timeouts } });
}

type Harness = ReturnType<typeof beating>;

/** When pings came, and when it ended, ms after the start; `answer` does what the peer does after each step. */
function play(harness: Harness, atMost: number, answer: (pings: number, at: number) => unknown = () => {}) {
  const pings: number[] = [];
  let at = 0;
  for (; at < atMost && !harness.closed; at += TICK) {
    harness.tick(TICK);
    if (harness.sent().toString().includes("ping")) pings.push(at + TICK);
    answer(pings.length, at + TICK);
  }
  return { pings, endedAt: harness.closed ? at : undefined };
}

function assertTimes(actual: readonly (number | undefined)[], expected: readonly number[]): void {
  assert.equal(actual.length, expected.length, `${actual}`);
  for (const [index, at] of expected.entries()) {
    const late = (actual[index] ?? Number.NaN) - at;
    assert.ok(late >= 0 && late <= 2 * TICK + at / 100, `${actual} instead of ${expected}`);
  }
}

test("a silent peer gets a ping every 5 s by default, and is reset when the third brought nothing", () => {
  const harness = beating();
  const { pings, endedAt } = play(harness, 60_000);
  assertTimes([...pings, endedAt], [5_000, 10_000, 15_000, 20_000]);
  assert.equal(harness.closed, "heartbeat-missed");
});

test("one that answers lives on; the pong reaches no handler", () => {
  handled.length = 0;
  const harness = beating({ timeouts: { heartbeat: 1_000 } });
  let answered = 0;
  const { pings, endedAt } = play(harness, 120_000, (count) => {
    if (count > answered) harness.push("pong\n");
    answered = count;
  });
  assert.equal(endedAt, undefined);
  assert.ok(pings.length > 100);
  assert.deepEqual(handled, []);
});

test("missed are counted in a row: a pong late, but before the last, starts anew", () => {
  const harness = beating({ timeouts: { heartbeat: 1_000 }, missed: 3 });
  const { endedAt } = play(harness, 60_000, (count, at) => {
    if (at === 2_950 || at === 5_800) harness.push("pong\n");
    if (at > 6_000) assert.ok(count >= 4);
  });
  assertTimes([endedAt], [5_800 + 4_000]);
});

test("a peer that talks is not pinged; whatever comes from it is a sign of life, also part of a message", () => {
  const harness = beating({ timeouts: { heartbeat: 1_000 } });
  const { pings } = play(harness, 20_000, (_, at) => {
    if (at % 900 === 0) harness.push("quiet\n");
    if (at % 900 === 450) harness.push("half");
  });
  assert.deepEqual(pings, []);
});

test("missed: 1 gives up after the first", () => {
  const { pings, endedAt } = play(beating({ missed: 1, timeouts: { heartbeat: 1_000 } }), 60_000);
  assertTimes([...pings, endedAt], [1_000, 2_000]);
});

test("idle: neither ping nor pong is activity; a message is, and so is one that is sent", () => {
  const timeouts: Partial<Timeouts> = { heartbeat: 1_000, idle: 10_000 };
  const pong = (harness: Harness, then?: (at: number) => unknown) => {
    let answered = 0;
    return play(harness, 100_000, (count, at) => {
      if (count > answered) harness.push("pong\n");
      answered = count;
      then?.(at);
    }).endedAt;
  };
  const idle = beating({ timeouts });
  assertTimes([pong(idle)], [10_000]);
  assert.equal(idle.closed, "idle-timeout");
  const heard = beating({ timeouts });
  // In front of a pong, where the engine's clock shows the pong alone.
  assertTimes([pong(heard, (at) => at === 8_000 && heard.push("quiet\npong\n"))], [18_000]);
  const told = beating({ timeouts });
  assertTimes([pong(told, (at) => at === 8_500 && told.connection.send("news"))], [18_500]);
  const inFrame = beating({ timeouts, missed: 50 });
  const { endedAt } = play(inFrame, 100_000, (_, at) => at === 7_500 && inFrame.push("half"));
  assertTimes([endedAt], [17_500]);
});

test("what this side holds back is not missed: a handler in flight, paused reads, unsent bytes", async () => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    heartbeat: { every: "1s", ping: () => "ping", isPong: (text) => text === "pong" },
    onMessage: (): Promise<undefined> =>
      new Promise((resolve) => {
        release = () => resolve(undefined);
      }),
  });
  const busy = testConnection(service, { timeouts: OFF });
  busy.push("job\n");
  busy.tick(30_000);
  for (let i = 0; i < 100; i++) busy.tick(1_000);
  assert.equal(busy.closed, undefined);
  release?.();
  await busy.settle();
  for (let i = 0; i < 70; i++) busy.tick(TICK);
  assert.equal(busy.closed, undefined);
  for (let i = 0; i < 20; i++) busy.tick(TICK);
  assert.equal(busy.closed, "heartbeat-missed");

  const paused = beating({ timeouts: { heartbeat: 1_000 } });
  paused.connection.pauseReads();
  for (let i = 0; i < 100; i++) paused.tick(1_000);
  assert.equal(paused.closed, undefined);

  const stalled = beating({ timeouts: { heartbeat: 1_000, writeStall: 10_000 } });
  stalled.stallWrites();
  stalled.connection.send("x");
  for (let i = 0; i < 300 && !stalled.closed; i++) stalled.tick(TICK);
  assert.equal(stalled.closed, "write-stall");
});

test("off is off; a connection may have its own; a service that has none sends none", () => {
  const off = beating({ timeouts: { heartbeat: "off" } });
  assert.deepEqual(play(off, 60_000), { pings: [], endedAt: undefined });
  off.connection.setTimeouts({ heartbeat: "2s" });
  assertTimes(play(off, 2_000).pings, [50]);
  const plain = testConnection(defineService({ codec: line(), onMessage: () => {} }), { timeouts: OFF });
  plain.tick(60_000);
  assert.deepEqual([plain.closed, plain.sent().toString()], [undefined, ""]);
});

test("the count moves with the connection, and a draining one is not pinged", () => {
  let harness = beating({ timeouts: { heartbeat: 1_000 } });
  const pings: number[] = [];
  let at = 0;
  for (; !harness.closed && at < 60_000; at += TICK) {
    harness = harness.moved();
    harness.tick(TICK);
    if (harness.sent().length > 0) pings.push(at + TICK);
  }
  assertTimes([...pings, at], [1_000, 2_000, 3_000, 4_000]);
  const draining = beating({ timeouts: { heartbeat: 1_000 } });
  draining.push("half");
  draining.drain();
  assert.deepEqual(play(draining, 20_000), { pings: [], endedAt: undefined });
});

test("a ping that throws is the handler's error; what is no heartbeat is refused when the service is defined", () => {
  const service = defineService({
    codec: line(),
    heartbeat: { ping: () => assert.fail("no ping"), isPong: () => false },
    onMessage: () => {},
  });
  const harness = testConnection(service, { timeouts: OFF });
  harness.tick(6_000);
  assert.equal(harness.closed, "handler-error");
  const good = { ping: () => "ping", isPong: () => false };
  const define = (heartbeat: unknown, timeouts = {}) =>
    defineService({ codec: line(), onMessage: () => {}, heartbeat: heartbeat as never, timeouts });
  assert.throws(() => define(5), /heartbeat: not an object/);
  assert.throws(() => define({ ...good, pong: 1 }), /heartbeat\.pong: unknown; allowed: every, missed, ping, isPong/);
  assert.throws(() => define({ ping: good.ping }), /heartbeat\.isPong: not a function/);
  assert.throws(() => define({ ...good, missed: 0 }), /heartbeat\.missed/);
  assert.throws(() => define({ ...good, every: 5 }), /heartbeat\.every: 5 has no unit/);
  assert.throws(() => define({ ...good, every: "1s" }, { heartbeat: "2s" }), /one of the two/);
  assert.equal(define({ ...good, every: "2s" }).timeouts.heartbeat, 2_000);
});

test("a worker that comes late to sending a ping does not take that for activity", async (t) => {
  const service = defineService({
    codec: line(),
    heartbeat: {
      isPong: (text: string) => text === "pong",
      ping() {
        // What else the tick of a busy worker does: the clock goes on.
        for (const until = performance.now() + 20; performance.now() < until; );
        return "ping";
      },
    },
    onMessage: () => {},
  });
  const timeouts = { firstByte: "off", frame: "off", heartbeat: 200, idle: 700 } as const;
  const serving = await openServing(t, service, { timeouts });
  const peer = await openPeer(t, serving.port);
  peer.socket.on("data", () => peer.write("pong\n"));
  const began = performance.now();
  await until("it is idle", () => serving.closes()["idle-timeout"] === 1 || performance.now() - began > 5_000);
  assert.deepEqual(serving.closes(), { "idle-timeout": 1 });
  assert.ok(peer.length >= 10, "it was pinged meanwhile");
});
