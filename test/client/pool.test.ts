import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { clientsOf } from "#src/client/registry.js";
import { sharedEngine } from "#src/engine/shared.js";
import { echo, lineClient, openDownstream, outcomeOf } from "../support/downstream.js";
import { until } from "../support/until.js";

/** What a busy machine may add to a deadline that is kept. */
const LATE_MS = 100;

/** A downstream's answer for the test to give later. */
function held(): { answer: (text: string, socket: Socket) => void; release(): void; waiting: number } {
  const waiting: (() => void)[] = [];
  return {
    answer: (text, socket) => waiting.push(() => echo(text, socket)),
    release: () => waiting.shift()?.(),
    get waiting() {
      return waiting.length;
    },
  };
}

test("one call after the other takes one connection, and each gets its own reply", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [downstream.target] });
  for (let i = 0; i < 50; i++) assert.equal(await client.call(`line ${i}`), `line ${i}`);
  const { counts, targets } = client.stats();
  assert.deepEqual([counts.opened, counts.reused, counts.ended.ok], [1, 49, 50]);
  assert.deepEqual([targets[0]?.connections, targets[0]?.idle, downstream.sockets.length], [1, 1, 1]);
});

test("calls side by side never share a connection, and never exceed the connections of a target", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 7 } });
  const calls = Array.from({ length: 200 }, (_, index) => client.call(String(index)));
  assert.deepEqual(
    await Promise.all(calls),
    calls.map((_, index) => String(index)),
  );
  assert.equal(downstream.sockets.length, 7);
});

test("who waits is served in the order of coming", async (t) => {
  const later = held();
  const downstream = await openDownstream(t, later.answer);
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 1 } });
  const calls = Array.from({ length: 10 }, (_, index) => client.call(String(index)));
  for (let index = 0; index < 10; index++) {
    await until("the question", () => later.waiting === 1);
    assert.equal(client.stats().waiting, 9 - index);
    later.release();
  }
  await Promise.all(calls);
  assert.deepEqual(downstream.asked, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
});

test("when too many wait the next one is told so at once, and nobody else is harmed", async (t) => {
  const later = held();
  const downstream = await openDownstream(t, later.answer);
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 1, waiting: 2 } });
  const first = client.call("under way");
  await until("the question", () => later.waiting === 1);
  const waiting = [client.call("waits"), client.call("waits too")];
  await assert.rejects(client.call("too many"), (error: { code: string; because: string; message: string }) => {
    assert.deepEqual([error.code, error.because], ["server-busy", "waiting-full"]);
    assert.match(error.message, /2 calls wait.*limits\.waiting/);
    return true;
  });
  for (const call of [first, ...waiting]) {
    await until("the question", () => later.waiting === 1);
    later.release();
    await call;
  }
  assert.equal(client.stats().counts.ended["waiting-full"], 1);
});

test("a deadline passes while the call waits: it has never been sent, and its place in the line is free", async (t) => {
  const later = held();
  const downstream = await openDownstream(t, later.answer);
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 1, waiting: 1 } });
  const first = client.call("first");
  await until("the question", () => later.waiting === 1);
  const begun = performance.now();
  await assert.rejects(client.call("second", { timeoutMs: 60 }), /test: no connection had room within 60 ms/);
  const ms = performance.now() - begun;
  assert.ok(ms >= 59 && ms < 60 + LATE_MS, `${ms} ms`);
  const third = client.call("third");
  later.release();
  await first;
  await until("the question", () => later.waiting === 1);
  later.release();
  await third;
  assert.deepEqual(downstream.asked, ["first", "third"]);
});

test("a signal takes a call out of the line, or off its connection, with its own reason", async (t) => {
  const later = held();
  const downstream = await openDownstream(t, later.answer);
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 1 } });
  const [sent, waiting] = [new AbortController(), new AbortController()];
  const calls = [
    client.call("sent", { signal: sent.signal }),
    client.call("waits", { signal: waiting.signal }),
    client.call("last"),
  ];
  const outcomes = calls.map((call) => call.catch((error: unknown) => error));
  await until("the question", () => later.waiting === 1);
  waiting.abort("not needed");
  assert.equal(await outcomes[1], "not needed");
  sent.abort("too late");
  assert.equal(await outcomes[0], "too late");
  // Its reply could be taken for the next one's: so that connection is gone.
  await until("the last one on another connection", () => later.waiting === 2);
  later.release();
  later.release();
  assert.equal(await outcomes[2], "last");
  assert.deepEqual([downstream.asked, downstream.sockets.length], [["sent", "last"], 2]);
  assert.equal(await outcomeOf(client.call("never", { signal: AbortSignal.abort() })), 20);
  assert.deepEqual(client.stats().counts.ended.cancelled, 3);
});

test("connections that nobody uses are closed, the others stay", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [downstream.target], timeouts: { idle: "300ms" } });
  await Promise.all([client.call("a"), client.call("b"), client.call("c")]);
  assert.equal(client.stats().targets[0]?.idle, 3);
  await until("two of them to go", async () => {
    await client.call("d");
    return client.stats().counts.evicted.idle === 2;
  });
  assert.equal(client.stats().targets[0]?.connections, 1);
  await until("the last to go", () => downstream.open === 0);
  assert.equal(client.stats().counts.evicted.idle, 3);
});

test("no more idle connections than allowed: of one target, and in all", async (t) => {
  const [one, other] = [await openDownstream(t), await openDownstream(t)];
  const few = lineClient(t, { targets: [one.target], limits: { idlePerTarget: 2 } });
  await Promise.all(Array.from({ length: 10 }, () => few.call("x")));
  assert.deepEqual([few.stats().targets[0]?.idle, few.stats().counts.evicted.surplus], [2, 8]);
  const all = lineClient(t, { targets: [one.target, other.target], limits: { idle: 3 } });
  await Promise.all(Array.from({ length: 20 }, () => all.call("x")));
  const idle = all.stats().targets.reduce((sum, target) => sum + target.idle, 0);
  assert.equal(idle, 3);
});

test("no more connections in all than allowed", async (t) => {
  const targets = [await openDownstream(t), await openDownstream(t), await openDownstream(t)];
  const client = lineClient(t, { targets: targets.map(({ target }) => target), limits: { connections: 4 } });
  await Promise.all(Array.from({ length: 100 }, () => client.call("x")));
  assert.equal(client.stats().counts.opened, 4);
});

test("several targets get equal shares, also when calls come one after the other", async (t) => {
  const targets = await Promise.all([1, 2, 3].map(() => openDownstream(t)));
  const client = lineClient(t, { targets: targets.map(({ target }) => target) });
  for (let i = 0; i < 600; i++) await client.call("x");
  for (const { asked } of targets) assert.ok(asked.length > 140 && asked.length < 260, String(asked.length));
});

test("a target that is slow gets few calls beside one that is not", async (t) => {
  const fast = await openDownstream(t);
  const slow = await openDownstream(t, (text, socket) => setTimeout(() => echo(text, socket), 50));
  const client = lineClient(t, { targets: [fast.target, slow.target] });
  const callers = Array.from({ length: 10 }, async () => {
    for (let i = 0; i < 40; i++) await client.call("x");
  });
  await Promise.all(callers);
  assert.ok(slow.asked.length < fast.asked.length / 3, `${slow.asked.length} and ${fast.asked.length}`);
});

test("a message that cannot be sent harms nobody but its caller", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [downstream.target], limits: { frame: 100 } });
  await client.call("a");
  assert.equal(await outcomeOf(client.call("two\nlines")), "frame-invalid");
  assert.equal(await outcomeOf(client.call("x".repeat(200))), "frame-too-large");
  assert.equal(await client.call("b"), "b");
  assert.deepEqual([downstream.sockets.length, client.stats().counts.ended["not-sent"]], [1, 2]);
});

test("large messages, larger than the engine's arena, both ways", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [downstream.target], limits: { frame: "16MiB" } });
  const texts = ["a", "b", "c"].map((letter) => letter.repeat(3_000_000));
  assert.deepEqual(await Promise.all(texts.map((text) => client.call(text))), texts);
});

test("from the local address that was asked for; a wrong one is said so", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [downstream.target], localAddress: "127.0.0.99" });
  await client.call("a");
  assert.equal(downstream.sockets[0]?.remoteAddress, "127.0.0.99");
  const elsewhere = lineClient(t, { targets: [downstream.target], localAddress: "192.0.2.1" });
  await assert.rejects(elsewhere.call("a"), /EADDRNOTAVAIL/);
});

test("close: what is under way ends, what comes later is refused, nothing stays open", async (t) => {
  const later = held();
  const downstream = await openDownstream(t, later.answer);
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 1 } });
  const calls = [client.call("under way"), client.call("waits")];
  await until("the question", () => later.waiting === 1);
  const closed = client.close();
  assert.equal(await outcomeOf(client.call("too late")), "client-closed");
  later.release();
  await until("the question", () => later.waiting === 1);
  later.release();
  assert.deepEqual(await Promise.all(calls), ["under way", "waits"]);
  await closed;
  assert.equal(client.close(), client.close());
  await until("no connection", () => downstream.open === 0);
});

test("close: what takes longer than its grace fails, and nothing stays open", async (t) => {
  const downstream = await openDownstream(t, () => {});
  const client = lineClient(t, { targets: [downstream.target], limits: { connectionsPerTarget: 1 } });
  const outcomes = [outcomeOf(client.call("under way")), outcomeOf(client.call("waits"))];
  await until("the question", () => downstream.asked.length === 1);
  await client.close(30);
  assert.deepEqual(await Promise.all(outcomes), ["client-closed", "client-closed"]);
  await until("no connection", () => downstream.open === 0);
});

test("the figures of all clients of an engine, until they are closed", async (t) => {
  const downstream = await openDownstream(t);
  const clients = ["a", "b"].map(() => lineClient(t, { targets: [downstream.target] }));
  for (const client of clients) await client.call("x");
  const figures = (): number => clientsOf(sharedEngine()).filter(({ counts }) => counts.calls === 1).length;
  assert.equal(figures(), 2);
  await clients[0]?.close();
  assert.equal(figures(), 1);
});

test("close by RST, when told so, and only what owes nothing", async (t) => {
  const errors: string[] = [];
  const downstream = await openDownstream(t);
  downstream.server.on("connection", (socket: Socket) =>
    socket.on("error", (error: NodeJS.ErrnoException) => errors.push(error.code ?? "")),
  );
  const client = lineClient(t, { targets: [downstream.target], close: "reset" });
  await client.call("a");
  await client.close();
  await until("RST", () => errors.length === 1);
  assert.deepEqual(errors, ["ECONNRESET"]);
});
