/** Connections that came through a proxy, and move: the client's address, its place and the header go along. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { line } from "#src/codec/line.js";
import { type AnyService, defineService } from "#src/service/define.js";
import { openPeer, type Peer } from "../support/peer.js";
import { ENDS, v1, v2, v2Local } from "../support/proxy-headers.js";
import { openServing, type Serving, type ServingOptions } from "../support/serving.js";
import { until } from "../support/until.js";
import { move } from "./moving.js";

const PROXIED: ServingOptions = { proxyProtocol: { trust: ["127.0.0.0/8"], required: true } };

/** Answers with whom it serves. */
const who: AnyService = defineService({
  codec: line(),
  timeouts: { firstByte: "off" },
  onMessage(_text, { connection: { remote, peer, proxy } }) {
    return JSON.stringify({ remote, peer, proxy: { ...proxy, tlvs: proxy?.tlvs.map(({ value }) => String(value)) } });
  },
});

async function pair(t: TestContext, options: ServingOptions): Promise<[Serving, Serving]> {
  const a = await openServing(t, who, { ...PROXIED, ...options });
  return [a, await openServing(t, who, { ...PROXIED, ...options, beside: a })];
}

test("client, proxy and values are the same in the other worker, and back", async (t) => {
  const [a, b] = await pair(t, {});
  const value = { type: 5, value: Buffer.from("id-17") };
  const peers: Peer[] = [];
  for (const header of [v1(), v2({ ...ENDS, source: "2001:db8::7", destination: "::1" }, [value], true), v2Local()]) {
    const peer = await openPeer(t, a.port);
    peer.write(Buffer.concat([header, Buffer.from("who\n")]));
    peers.push(peer);
  }
  await until("three answers", () => peers.every((peer) => peer.length > 0));
  const before = peers.map((peer) => peer.text);
  assert.match(before[1] ?? "", /2001:db8::7.*id-17/);
  for (const [from, to, times] of [
    [a, b, 2],
    [b, a, 3],
  ] as const) {
    assert.equal((await move(from, to)).moved, 3);
    for (const peer of peers) peer.write("who\n");
    await until("three answers more", () => peers.every((peer, i) => peer.length === times * (before[i]?.length ?? 0)));
    assert.deepEqual(
      peers.map((peer) => peer.text),
      before.map((text) => text.repeat(times)),
    );
  }
});

test("the limit of the client's address holds in the other worker", async (t) => {
  const [a, b] = await pair(t, { limits: { connectionsPerAddress: 1 } });
  const first = await openPeer(t, a.port);
  first.write(Buffer.concat([v1(), Buffer.from("who\n")]));
  await until("an answer", () => first.length > 0);
  await move(a, b);
  const second = await openPeer(t, a.port);
  second.write(v1());
  await until("a reset", () => second.error === "ECONNRESET" || undefined);
  first.end();
  await until("its end", () => first.ended);
  const third = await openPeer(t, b.port);
  third.write(Buffer.concat([v1(), Buffer.from("who\n")]));
  await until("an answer", () => third.length > 0);
});

test("who is still saying whom he speaks for is waited for, and then moves too", async (t) => {
  const [a, b] = await pair(t, { timeouts: { proxyHeader: 5_000 } });
  const [late, never, served] = [await openPeer(t, a.port), await openPeer(t, a.port), await openPeer(t, a.port)];
  late.write(v1().subarray(0, 10));
  served.write(v1());
  await until("all three", () => a.figure("prefaces") === 2 && a.figure("active") === 1);
  const moving = move(a, b);
  await until("the move is under way", () => b.figure("active") === 1);
  late.write(Buffer.concat([v1().subarray(10), Buffer.from("who\n")]));
  never.reset();
  const { moved } = await moving;
  assert.equal(moved, 2);
  assert.equal(b.figure("active"), 2);
  await until("an answer", () => late.text.endsWith("\n") || undefined);
  assert.ok(late.text.includes(ENDS.source));
  late.write("who\n");
  await until("another", () => late.text.split("\n").length === 3);
});

test("they are not waited for longer than the move may take", async (t) => {
  const [a, b] = await pair(t, { timeouts: { proxyHeader: "off" } });
  const never = await openPeer(t, a.port);
  await until("it is there", () => a.figure("prefaces") === 1);
  const began = performance.now();
  assert.equal((await move(a, b, { withinMs: 300 })).moved, 0);
  const took = performance.now() - began;
  assert.ok(took >= 250 && took < 2_000, `${took} ms`);
  assert.equal(never.closed, false);
  assert.equal(a.figure("prefaces"), 1);
});

test("a few connections that move to a new worker are not held up by them", async (t) => {
  const [a, b] = await pair(t, {});
  const served = await openPeer(t, a.port);
  served.write(v1());
  await openPeer(t, a.port);
  await until("one of each", () => a.figure("prefaces") === 1 && a.figure("active") === 1);
  const began = performance.now();
  assert.equal((await move(a, b, { most: 1, handOff: false })).moved, 1);
  assert.ok(performance.now() - began < 1_000);
});

/** Numbers the lines of all its connections, and hands the number off. */
const counting: AnyService = defineService({
  codec: line(),
  timeouts: { firstByte: "off" },
  env: () => ({ lines: 0 }),
  onMessage: (_text, { env }) => String(++env.lines),
  handOff: ({ lines }) => Buffer.from(String(lines)),
  takeOver(env, bytes) {
    env.lines += Number(Buffer.from(bytes).toString());
  },
});

for (const finishes of [true, false]) {
  test(`shared state is handed off when all are through${finishes ? "" : ", and not at all when one is not in time"}`, async (t) => {
    const options = { ...PROXIED, timeouts: { proxyHeader: 10_000 } } as const;
    const a = await openServing(t, counting, options);
    const b = await openServing(t, counting, { ...options, beside: a });
    const [served, late] = [await openPeer(t, a.port), await openPeer(t, a.port)];
    served.write(Buffer.concat([v1(), Buffer.from("x\n")]));
    late.write(v2().subarray(0, 20));
    await served.receives(2);
    await until("the late one", () => a.figure("prefaces") === 1);
    const moving = move(a, b, { withinMs: finishes ? 5_000 : 500 });
    await until("the first is told to leave", () => a.server.connections()[0]?.standing === "quiet");
    if (finishes) late.write(Buffer.concat([v2().subarray(20), Buffer.from("x\n")]));
    assert.equal((await moving).moved, finishes ? 2 : 0);
    if (!finishes) late.write(Buffer.concat([v2().subarray(20), Buffer.from("x\n")]));
    await late.receives(2);
    served.write("x\n");
    await served.receives(4);
    assert.deepEqual([served.text, late.text], ["1\n3\n", "2\n"]);
    assert.equal((finishes ? b : a).figure("active"), 2);
  });
}
