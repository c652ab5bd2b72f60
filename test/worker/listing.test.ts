/** What a worker says of its connections: in order, filtered, without standing still; and how one of them is killed. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { defineService, line } from "#src/index.js";
import { killById, listKeys, listRows } from "#src/worker/listing.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";
import { withLag } from "./moving.js";

const CONNECTIONS = 4_000;
/** A slice is 2 ms; the rest is for a machine that has other things to do, and for the garbage of all these clients. */
const LONGEST_MS = 100;
const echo = defineService({ name: "echo", codec: line(), onMessage: (message) => message });
const QUERY = { sort: "age", order: "desc", most: 1_000 } as const;

async function openAll(t: TestContext, port: number, count: number): Promise<Socket[]> {
  const all: Socket[] = [];
  while (all.length < count) {
    const group = Array.from({ length: Math.min(250, count - all.length) }, () => connect(port, "127.0.0.1"));
    for (const socket of group) t.after(() => socket.destroy());
    await Promise.all(group.map((socket) => once(socket, "connect")));
    all.push(...group);
  }
  return all;
}

test(`${CONNECTIONS} connections are listed, and the loop never stands still for ${LONGEST_MS} ms`, async (t) => {
  const { server, port } = await openServing(t, echo, { connections: 2 * CONNECTIONS, timeouts: { firstByte: "off" } });
  await openAll(t, port, CONNECTIONS);
  await until("all are there", () => server.connections().length === CONNECTIONS);
  const pauses: number[] = [];
  for (let round = 0; round < 5; round++) {
    const { value, longest } = await withLag(async () => {
      const { total, handles } = await listKeys(server.engine, { ...QUERY, address: "127.0.0.0/8" });
      return { total, rows: await listRows(server.engine, 3, handles) };
    });
    assert.equal(value.total, CONNECTIONS);
    assert.equal(value.rows.length, 1_000);
    assert.ok(value.rows.every((row) => row?.worker === 3 && row.state === "open" && row.rttMs !== undefined));
    pauses.push(longest);
  }
  t.diagnostic(`longest pauses ${pauses.map((pause) => pause.toFixed(1)).join(", ")} ms`);
  // Whoever else uses the machine may hold up one or the other round, but not all of them.
  assert.ok(Math.min(...pauses) < LONGEST_MS, `${pauses}`);
});

test("filters, orders, and a handle of a connection that has gone", async (t) => {
  const { server, port } = await openServing(t, echo);
  const [first, second] = await openAll(t, port, 2);
  first?.write("hello\n");
  second?.write(`${"x".repeat(100)}\n`);
  await until("both have sent", async () => (await sizes("desc")).every((bytes) => bytes > 0));
  async function sizes(order: "asc" | "desc"): Promise<number[]> {
    const { handles } = await listKeys(server.engine, { sort: "bytes", order, most: 10 });
    return (await listRows(server.engine, 0, handles)).map((row) => row?.bytesReceived ?? -1);
  }
  assert.deepEqual(await sizes("desc"), [101, 6]);
  assert.deepEqual(await sizes("asc"), [6, 101]);
  const none = await listKeys(server.engine, { ...QUERY, listener: "other" });
  assert.deepEqual(none, { total: 0, keys: [], handles: [] });
  for (const [address, total] of [
    ["127.0.", 2],
    ["127.0.0.1/32", 2],
    ["10.0.0.0/8", 0],
    ["::/0", 0],
    ["nonsense", 0],
  ] as const) {
    assert.equal((await listKeys(server.engine, { ...QUERY, address })).total, total, address);
  }
  const { handles } = await listKeys(server.engine, QUERY);
  const [row, other] = await listRows(server.engine, 0, handles);
  assert.equal(await killById(server.engine, row?.id ?? ""), true);
  assert.equal(await killById(server.engine, row?.id ?? ""), false);
  const after = await listRows(server.engine, 0, handles);
  assert.deepEqual([after.length, after[0], after[1]?.id], [2, null, other?.id]);
});

test("a killed connection is reset, and counted as such", async (t) => {
  const serving = await openServing(t, echo);
  const [socket] = await openAll(t, serving.port, 1);
  const ended = new Promise((resolve) => socket?.once("error", resolve));
  await until("it is there", () => serving.server.connections().length === 1);
  await killById(serving.server.engine, serving.server.connections()[0]?.id ?? "");
  assert.equal(((await ended) as NodeJS.ErrnoException).code, "ECONNRESET");
  assert.deepEqual(serving.closes(), { admin: 1 });
});
