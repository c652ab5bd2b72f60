/** Downstreams that do what they should not: what callers see, and that no connection that failed serves again. */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { echo, lineClient, openDownstream, outcomeOf, stop, unusedPort } from "../support/downstream.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

/** What a busy machine may add to a deadline that is kept. */
const LATE_MS = 100;

/** Does what the line says. */
function obey(text: string, socket: Socket): void {
  const [order = "", number] = text.split(" ");
  if (order === "reset") socket.resetAndDestroy();
  else if (order === "close") socket.end();
  else if (order === "half") socket.end("half a re");
  else if (order === "twice") socket.write(`${text}\n${text}\n`);
  else if (order === "garbage") socket.write(Buffer.from([0xff, 0xfe, 10]));
  else if (order === "late") setTimeout(() => echo(text, socket), Number(number));
  else if (order === "leave") echo(text, socket.end(`${text}\n`));
  else if (order !== "hang") echo(text, socket);
}

for (const [order, code, eviction] of [
  ["reset", "connection-closed", "peer-reset"],
  ["close", "connection-closed", "peer-closed"],
  ["half", "connection-closed", "peer-closed"],
  ["garbage", "reply-invalid", "protocol-error"],
] as const) {
  test(`${order}: ${code} for that call; the next one has another connection`, async (t) => {
    const downstream = await openDownstream(t, obey);
    const client = lineClient(t, { targets: [downstream.target] });
    assert.equal(await client.call("a"), "a");
    assert.equal(await outcomeOf(client.call(order)), code);
    assert.equal(await client.call("b"), "b");
    const { counts } = client.stats();
    assert.deepEqual([counts.opened, counts.evicted[eviction], downstream.sockets.length], [2, 1, 2]);
  });
}

test("late: the caller hears of its deadline in time, and nobody ever gets that reply", async (t) => {
  const downstream = await openDownstream(t, obey);
  const client = lineClient(t, { targets: [downstream.target] });
  await client.call("a");
  const begun = performance.now();
  await assert.rejects(client.call("late 200", { timeoutMs: 50 }), /no reply from 127\.0\.0\.1:\d+ within 50 ms/);
  assert.ok(performance.now() - begun < 50 + LATE_MS);
  for (let i = 0; i < 30; i++) {
    assert.equal(await client.call(`b${i}`), `b${i}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.deepEqual([client.stats().counts.evicted["given-up"], downstream.sockets.length], [1, 2]);
});

test("hang: every caller hears of its own deadline, and the server is told by RST that nobody waits", async (t) => {
  const errors: string[] = [];
  const downstream = await openDownstream(t, obey);
  downstream.server.on("connection", (socket: Socket) =>
    socket.on("error", ({ code }: NodeJS.ErrnoException) => errors.push(code ?? "")),
  );
  const client = lineClient(t, { targets: [downstream.target] });
  const begun = performance.now();
  const outcomes = await Promise.all(
    [30, 60, 90].map((timeoutMs) =>
      client.call("hang", { timeoutMs }).catch((error: { code: string }) => ({
        code: error.code,
        late: performance.now() - begun - timeoutMs,
      })),
    ),
  );
  for (const outcome of outcomes) {
    assert.ok(
      typeof outcome === "object" && outcome.code === "deadline-exceeded" && outcome.late < LATE_MS,
      String(outcome),
    );
  }
  await until("three resets", () => errors.length === 3);
});

test("a reply that nobody asked for: that connection goes", async (t) => {
  const downstream = await openDownstream(t, obey);
  const client = lineClient(t, { targets: [downstream.target] });
  assert.equal(await client.call("twice"), "twice");
  assert.equal(await client.call("b"), "b");
  await until("the end of the first", () => client.stats().counts.evicted["unexpected-data"] === 1);
  downstream.sockets[1]?.write("nonsense\n");
  await until("the end of the second", () => client.stats().counts.evicted["unexpected-data"] === 2);
  assert.equal(await client.call("c"), "c");
});

test("FIN on an idle connection, known or not yet: the next call goes elsewhere and does not fail", async (t) => {
  const downstream = await openDownstream(t, obey);
  const client = lineClient(t, { targets: [downstream.target] });
  for (let i = 0; i < 200; i++) assert.equal(await client.call(`leave ${i}`), `leave ${i}`);
  assert.equal(downstream.sockets.length, 200);
});

test("nobody listens: refused at once, left alone for a while, found again", async (t) => {
  const port = await unusedPort();
  const client = lineClient(t, { targets: [`127.0.0.1:${port}`], timeouts: { backoff: "100ms" } });
  await assert.rejects(client.call("a"), (error: { code: string; fields: object; message: string }) => {
    assert.equal(error.code, "connect-failed");
    assert.deepEqual(error.fields, { address: `127.0.0.1:${port}`, errno: "ECONNREFUSED" });
    assert.match(error.message, /test: cannot connect to 127.*ECONNREFUSED; tried again in \d+ ms/);
    return true;
  });
  const { connectFaults } = client.stats().counts;
  // Meanwhile nobody knocks.
  for (let i = 0; i < 20; i++) assert.equal(await outcomeOf(client.call("b")), "connect-failed");
  assert.deepEqual([connectFaults.refused, client.stats().targets[0]?.state], [1, "backing-off"]);
  assert.ok(client.stats().counts.connectFaults.refused <= 2);
  await openDownstream(t, echo, { port });
  await until("an answer", () => client.call("c").catch(() => undefined));
  assert.equal(client.stats().targets[0]?.state, "up");
});

test("one of two targets is down: no call fails, and it is asked for again and again, ever more rarely", async (t) => {
  const [up, down] = [await openDownstream(t), await unusedPort()];
  const client = lineClient(t, { targets: [`127.0.0.1:${down}`, up.target] });
  const end = performance.now() + 500;
  while (performance.now() < end) {
    assert.equal(await client.call("a"), "a");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const { refused } = client.stats().counts.connectFaults;
  assert.ok(refused >= 2 && refused <= 4, String(refused));
  await openDownstream(t, echo, { port: down });
  await until("its share", async () => {
    await client.call("a");
    return client.stats().targets[0]?.connections === 1;
  });
});

test("unreachable: nobody answers the SYN, so a call fails after timeouts.connect, or at its own deadline", async (t) => {
  const fd = check(
    addon().socketListen("127.0.0.1", 0, true, packSocketOptions({ ...DEFAULT_SOCKET, backlog: 1 })),
    "x",
  );
  t.after(() => addon().fdClose(fd));
  const port = boundPort(fd);
  // Its queue is full; the kernel drops what comes.
  await Promise.all([openPeer(t, port), openPeer(t, port)]);
  const client = lineClient(t, { targets: [`127.0.0.1:${port}`], timeouts: { connect: "150ms" } });
  const begun = performance.now();
  await assert.rejects(client.call("a"), /no answer within 150 ms \(127\.0\.0\.1\)/);
  const ms = performance.now() - begun;
  assert.ok(ms >= 149 && ms < 150 + LATE_MS, `${ms} ms`);
  assert.equal(client.stats().counts.connectFaults.timeout, 1);
  const patient = lineClient(t, { targets: [`127.0.0.1:${port}`], timeouts: { connect: "10s" } });
  await assert.rejects(patient.call("a", { timeoutMs: 60 }), /no connection had room and none came about within 60 ms/);
});

test("a server that closes every connection unanswered is as good as down", async (t) => {
  const downstream = await openDownstream(t);
  downstream.server.on("connection", (socket: Socket) => socket.destroy());
  const client = lineClient(t, { targets: [downstream.target] });
  for (let i = 0; i < 100; i++) assert.notEqual(await outcomeOf(client.call("a")), "answered");
  const { opened, ended } = client.stats().counts;
  assert.ok(opened <= 3, `${opened} connections`);
  assert.equal(ended["connection-lost"] + ended["connect-failed"], 100);
});

test("a server that closes what it was never asked anything on is not to blame", async (t) => {
  const downstream = await openDownstream(t);
  downstream.server.on("connection", (socket: Socket) => socket.end());
  const client = lineClient(t, { targets: [downstream.target] });
  for (let burst = 1; burst <= 3; burst++) {
    const gone = new AbortController();
    const calls = Array.from({ length: 5 }, () => outcomeOf(client.call("x", { signal: gone.signal })));
    gone.abort(new Error("not needed"));
    await Promise.all(calls);
    await until("the surplus to be closed", () => client.stats().counts.evicted["peer-closed"] === 5 * burst);
    assert.equal(client.stats().targets[0]?.state, "up");
  }
});

test("a server goes and comes back: callers in between fail at once, later ones do not", async (t) => {
  const first = await openDownstream(t);
  const client = lineClient(t, { targets: [first.target], timeouts: { backoff: "100ms" } });
  await client.call("a");
  await stop(first);
  await until("a failure", async () => (await outcomeOf(client.call("b"))) === "connect-failed");
  await openDownstream(t, echo, { port: first.port });
  await until("an answer", () => client.call("c").catch(() => undefined));
});

test("retries: none by default, none without leave, one with it, and only within the budget", async (t) => {
  let left = 0;
  const downstream = await openDownstream(t, (text, socket) => {
    if (left-- > 0) socket.resetAndDestroy();
    else echo(text, socket);
  });
  const none = lineClient(t, { targets: [downstream.target] });
  await none.call("a");
  left = 1;
  assert.equal(await outcomeOf(none.call("b", { idempotent: true })), "connection-closed");
  const some = lineClient(t, { targets: [downstream.target], retries: "5%" });
  for (let i = 0; i < 21; i++) await some.call("a");
  left = 1;
  assert.equal(await outcomeOf(some.call("b")), "connection-closed");
  assert.equal(await some.call("c"), "c");
  left = 1;
  assert.equal(await some.call("d", { idempotent: true }), "d");
  left = 1;
  assert.equal(await outcomeOf(some.call("nothing left", { idempotent: true })), "connection-closed");
  const { retried, retriesRefused } = some.stats().counts;
  assert.deepEqual([retried, retriesRefused], [1, 1]);
  const idle = lineClient(t, { targets: [downstream.target], retries: "100%" });
  await Promise.all([idle.call("a"), idle.call("b")]);
  left = 1;
  assert.equal(await idle.call("on the other one", { idempotent: true }), "on the other one");
  assert.equal(idle.stats().counts.opened, 2);
  const many = lineClient(t, { targets: [downstream.target], retries: "100%" });
  for (let i = 0; i < 10; i++) await many.call("a");
  left = 2;
  assert.equal(await outcomeOf(many.call("twice unlucky", { idempotent: true })), "connection-closed");
  assert.equal(many.stats().counts.retried, 1);
});
