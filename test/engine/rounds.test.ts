/** Rounds: more than fits in one, fairness among connections, and a listener that is overrun. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { INPUT_RECORDS } from "#src/engine/layout.js";
import { WORKER_FIELDS } from "#src/os/scoreboard.js";
import { accept, openEngine, openLoopback } from "../support/loopback.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const ROUNDS = WORKER_FIELDS.indexOf("rounds");
const OPEN = WORKER_FIELDS.indexOf("open");
const ACCEPTED = WORKER_FIELDS.indexOf("accepted");
/** native/engine.h */
const ACCEPTS_PER_ROUND = 64;
const EVENTS_PER_ROUND = 512;
const RECEIVE_SHARE = 64 * 1024;

test("accepts are bounded per round, and everyone in the queue gets in", async (t) => {
  const count = 500;
  const loopback = openLoopback(t, { accepting: false });
  const perRound = new Map<number, number>();
  loopback.on = () => {
    const round = loopback.totals[ROUNDS] as number;
    perRound.set(round, (perRound.get(round) ?? 0) + 1);
    return {};
  };
  const clients = Array.from({ length: count }, () => loopback.connect());
  await until("all to be connected", () => clients.every((each) => each.opened));
  accept(loopback);
  await until("all to be accepted", () => loopback.accepted.length === count);
  assert.ok(Math.max(...perRound.values()) <= ACCEPTS_PER_ROUND);
  assert.equal(loopback.totals[ACCEPTED], count);
  assert.equal(loopback.totals[OPEN], 2 * count);
});

test("more connections are ready than one round takes: each is served, and soon", async (t) => {
  const count = 3 * EVENTS_PER_ROUND;
  const loopback = openLoopback(t);
  const clients = Array.from({ length: count }, () => loopback.connect());
  await until("all to be accepted", () => loopback.accepted.length === count && clients.every((each) => each.opened));
  for (const client of clients) client.send("ping");
  loopback.engine.flush();
  const start = loopback.totals[ROUNDS] as number;
  let done = 0;
  for (const served of loopback.accepted) {
    served.on.onData = () => {
      done += 1;
      served.send("pong");
    };
  }
  await until("all pings", () => done === count);
  await until("all pongs", () => clients.every((each) => each.text === "pong"));
  assert.ok((loopback.totals[ROUNDS] as number) - start <= 60, "a few full rounds, not one per connection");
});

test("a flooding connection does not starve a quiet one, and takes one share a round", async (t) => {
  const loopback = openLoopback(t);
  const clients = [loopback.connect(), loopback.connect(), loopback.connect()];
  await until("all to be open", () => loopback.accepted.length === 3 && clients.every((each) => each.opened));
  const [flood, quiet] = clients;
  const [flooded, asked] = loopback.accepted;
  if (!flood || !quiet || !flooded || !asked) throw new Error("unreachable");
  const perRound = new Map<number, number>();
  flooded.on.onData = (_input, from, to) => {
    const round = loopback.totals[ROUNDS] as number;
    perRound.set(round, (perRound.get(round) ?? 0) + to - from);
  };
  asked.on.onData = (input, from, to) => asked.send(Buffer.from(input.subarray(from, to)));
  const megabyte = Buffer.alloc(1 << 20);
  flood.on.onWritable = () => {
    flood.send(megabyte);
    loopback.engine.notifyBelow(flood.slot, flood.generation, 1 << 20);
  };
  flood.on.onWritable();
  let answers = 0;
  let askedAt = loopback.totals[ROUNDS] as number;
  let worst = 0;
  quiet.on.onData = () => {
    worst = Math.max(worst, (loopback.totals[ROUNDS] as number) - askedAt);
    answers += 1;
    askedAt = loopback.totals[ROUNDS] as number;
    quiet.send("?");
  };
  quiet.send("?");
  await until("200 answers", () => answers >= 200);
  flood.on.onWritable = () => {};
  assert.ok(worst <= 8, `an answer took ${worst} rounds`);
  assert.ok(Math.max(...perRound.values()) <= RECEIVE_SHARE);
  assert.ok(flooded.count("data") > 50, "the flood was one");
});

test("more input than the arena holds in one round: all of it comes, and none of it spins", async (t) => {
  const count = 40;
  const size = 300_000;
  const loopback = openLoopback(t);
  const clients = Array.from({ length: count }, () => loopback.connect());
  await until("all to be open", () => loopback.accepted.length === count && clients.every((each) => each.opened));
  for (const [index, client] of clients.entries()) client.send(Buffer.alloc(size, index));
  const sum = (): number => loopback.accepted.reduce((total, each) => total + each.bytes.length, 0);
  await until("all bytes", () => sum() === count * size);
  for (const served of loopback.accepted) {
    const [first] = served.bytes;
    assert.ok(served.bytes.equals(Buffer.alloc(size, first)));
  }
  await until("the loop to calm down", async () => {
    const before = loopback.totals[ROUNDS];
    await new Promise((resolve) => setTimeout(resolve, 30));
    return loopback.totals[ROUNDS] === before;
  });
});

test("more records than a round may write are written in the next", async (t) => {
  const count = INPUT_RECORDS / 4;
  const loopback = openLoopback(t);
  const clients = Array.from({ length: count }, () => loopback.connect());
  await until("all to be open", () => loopback.accepted.length === count && clients.every((each) => each.opened));
  for (let turn = 0; turn < 3; turn++) {
    for (const served of loopback.accepted) {
      served.send(`${turn}`);
      loopback.engine.notifyBelow(served.slot, served.generation, 1);
    }
  }
  await until("all bytes", () => clients.every((each) => each.text === "012"));
  await until("all marks", () => loopback.accepted.every((each) => each.count("writable") >= 1));
});

test("no spinning: an engine with connections that do nothing has no rounds", async (t) => {
  const loopback = openLoopback(t);
  const peers = await Promise.all(Array.from({ length: 5 }, () => openPeer(t, loopback.port)));
  await loopback.nth(4);
  peers[0]?.end();
  peers[1]?.write("x");
  peers[2]?.reset();
  await until("what happened", () => loopback.accepted.filter((each) => each.events.length === 2).length === 3);
  const before = loopback.totals[ROUNDS] as number;
  await new Promise((resolve) => setTimeout(resolve, 150));
  assert.ok((loopback.totals[ROUNDS] as number) - before <= 5);
});

test("the clock read anew is ahead of the engine's, and never far", async (t) => {
  const engine = openEngine(t);
  for (let round = 0; round < 20; round++) {
    const [before, now] = [engine.now, engine.clock()];
    assert.ok(now >= before && engine.clock() >= now);
    await until("the engine's clock has moved", () => engine.now > before);
  }
  const [hrtime, now] = [Number(process.hrtime.bigint()) / 1e6, engine.clock()];
  assert.ok(now >= hrtime && now < hrtime + 1_000);
});
