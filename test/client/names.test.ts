/** Targets given by name: looked up beside the calls, every address tried. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_SOCKET } from "#src/base/settings.js";
import { addon } from "#src/os/addon.js";
import { boundPort } from "#src/os/descriptors.js";
import { check } from "#src/os/errno.js";
import { packSocketOptions } from "#src/os/socket.js";
import { echo, lineClient, openDownstream, outcomeOf } from "../support/downstream.js";
import { openPeer } from "../support/peer.js";
import { until } from "../support/until.js";

const names =
  (...addresses: string[]) =>
  async (): Promise<string[]> =>
    addresses;

test("the system's names: localhost, whichever of its addresses is served", async (t) => {
  const downstream = await openDownstream(t);
  const client = lineClient(t, { targets: [`localhost:${downstream.port}`] });
  assert.equal(await client.call("a"), "a");
});

test("two addresses, one of them dead: no call fails, whichever comes first", async (t) => {
  const downstream = await openDownstream(t);
  for (const addresses of [
    ["127.0.0.9", "127.0.0.1"],
    ["127.0.0.1", "127.0.0.9"],
  ]) {
    const client = lineClient(t, { targets: [`db:${downstream.port}`], resolve: names(...addresses) });
    await Promise.all(Array.from({ length: 10 }, () => client.call("a")));
    assert.equal(client.stats().counts.ended.ok, 10);
    const { connectFaults, addressFaults } = client.stats().counts;
    assert.equal(connectFaults.refused, 0);
    assert.ok(addressFaults > 0);
  }
});

test("two addresses, one of them a black hole: the other one is tried after a quarter of a second", async (t) => {
  const options = packSocketOptions({ ...DEFAULT_SOCKET, backlog: 1 });
  const fd = check(addon().socketListen("127.0.0.1", 0, true, options), "listen");
  t.after(() => addon().fdClose(fd));
  const port = boundPort(fd);
  await Promise.all([openPeer(t, port), openPeer(t, port)]);
  await openDownstream(t, echo, { port, host: "127.0.0.2" });
  const client = lineClient(t, { targets: [`db:${port}`], resolve: names("127.0.0.1", "127.0.0.2") });
  const begun = performance.now();
  assert.equal(await client.call("a"), "a");
  const ms = performance.now() - begun;
  assert.ok(ms > 200 && ms < 500, `${ms} ms`);
  // It is known by now that the first one does not answer.
  const again = performance.now();
  await Promise.all([client.call("b"), client.call("c"), client.call("d")]);
  assert.ok(performance.now() - again < 400);
});

test("all addresses dead: the caller hears of it, and of the last one", async (t) => {
  const { port } = await openDownstream(t);
  const client = lineClient(t, { targets: [`db:${port}`], resolve: names("127.0.0.8", "127.0.0.9") });
  await assert.rejects(client.call("a"), /cannot connect to db:\d+: 127\.0\.0\.9:\d+: ECONNREFUSED/);
});

test("a name that is none", async (t) => {
  const client = lineClient(t, { targets: ["no-such-host.invalid:7000"] });
  await assert.rejects(client.call("a"), (error: { code: string; fields: { errno?: string } }) => {
    assert.equal(error.code, "connect-failed");
    assert.match(error.fields.errno ?? "", /^(ENOTFOUND|EAI_AGAIN)$/);
    return true;
  });
  assert.equal(client.stats().counts.connectFaults.name, 1);
});

test("a resolver that does not answer: calls fail in time, and those that have connections notice nothing", async (t) => {
  const downstream = await openDownstream(t);
  let answers = true;
  const resolve = (): Promise<string[]> => (answers ? Promise.resolve(["127.0.0.1"]) : new Promise(() => {}));
  const client = lineClient(t, { targets: [`db:${downstream.port}`], resolve, timeouts: { resolve: "1ms" } });
  await client.call("a");
  answers = false;
  const begun = performance.now();
  await Promise.all(Array.from({ length: 50 }, () => client.call("b")));
  assert.ok(performance.now() - begun < 500);
  const other = lineClient(t, { targets: [`db:${downstream.port}`], resolve });
  assert.equal(await outcomeOf(other.call("a", { timeoutMs: 40 })), "deadline-exceeded");
  const third = lineClient(t, { targets: [`db:${downstream.port}`], resolve, timeouts: { connect: "40ms" } });
  await assert.rejects(third.call("a"), /no answer within 40 ms \(resolving its name\)/);
});

test("a resolver that once does not answer is asked again", async (t) => {
  const downstream = await openDownstream(t);
  let asked = 0;
  const resolve = (): Promise<string[]> => (++asked === 1 ? new Promise(() => {}) : Promise.resolve(["127.0.0.1"]));
  const timeouts = { connect: "40ms", backoff: "100ms" } as const;
  const client = lineClient(t, { targets: [`db:${downstream.port}`], resolve, timeouts });
  assert.equal(await outcomeOf(client.call("a")), "connect-failed");
  await until("an answer", () => client.call("b", { timeoutMs: 500 }).catch(() => undefined));
  assert.deepEqual([asked, client.stats().counts.lookupsFailed], [2, 1]);
});

test("a name that moves is followed, once its old address does not answer any more", async (t) => {
  const before = await openDownstream(t, echo);
  let address = "127.0.0.1";
  const client = lineClient(t, {
    targets: [`db:${before.port}`],
    resolve: async () => [address],
    timeouts: { backoff: "100ms" },
  });
  await client.call("a");
  address = "127.0.0.2";
  for (const socket of before.sockets) socket.destroy();
  await new Promise((resolve) => before.server.close(resolve));
  const moved = await openDownstream(t, echo, { port: before.port, host: "127.0.0.2" });
  await until("an answer", () => client.call("b").catch(() => undefined));
  assert.ok(moved.asked.includes("b"));
});
