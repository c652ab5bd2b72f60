import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAddress } from "#src/base/address.js";
import { type Endpoint, limitConflicts, overlap } from "#src/config/conflicts.js";

function at(text: string, ipv6Only = false): Endpoint {
  const address = parseAddress(text);
  assert.ok(typeof address === "object", text);
  return { address, ipv6Only };
}

function bothWays(a: Endpoint, b: Endpoint): boolean {
  assert.equal(overlap(a, b), overlap(b, a), "order is no matter");
  return overlap(a, b);
}

test("addresses overlap when they are the same, however they are spelled", () => {
  assert.ok(bothWays(at("127.0.0.1:1"), at("localhost:1")));
  assert.ok(bothWays(at("[::1]:1"), at("[0:0:0:0:0:0:0:1]:1")));
  assert.ok(bothWays(at("[FE80::A]:1"), at("[fe80::a]:1")));
  assert.ok(!bothWays(at("127.0.0.1:1"), at("127.0.0.1:2")));
  assert.ok(!bothWays(at("127.0.0.1:1"), at("127.0.0.2:1")));
  assert.ok(!bothWays(at("127.0.0.1:0"), at("127.0.0.1:0")), "port 0");
});

test("a wildcard covers its family, and [::] both unless it is IPv6 only", () => {
  assert.ok(bothWays(at("0.0.0.0:1"), at("127.0.0.1:1")));
  assert.ok(!bothWays(at("0.0.0.0:1"), at("[::1]:1")));
  assert.ok(bothWays(at("[::]:1"), at("[::1]:1")));
  assert.ok(bothWays(at("[::]:1"), at("127.0.0.1:1")));
  assert.ok(bothWays(at("[::]:1"), at("0.0.0.0:1")));
  assert.ok(!bothWays(at("[::]:1", true), at("0.0.0.0:1")));
});

test("a frame has to fit the memory for all of them, with the buffer that it may need", () => {
  const MiB = 1024 ** 2;
  assert.deepEqual(limitConflicts({ frame: MiB }), []);
  assert.deepEqual(limitConflicts({ frame: MiB, bufferMemory: 3 * MiB }), []);
  assert.deepEqual(limitConflicts({ frame: MiB + 1, bufferMemory: 3 * MiB }), [
    { option: "frame", relation: "must not be above a third of", other: "bufferMemory" },
  ]);
});

test("water marks: low below high, high at most what may be buffered", () => {
  assert.deepEqual(limitConflicts({}), []);
  assert.deepEqual(limitConflicts({ lowWater: 5 }), []);
  assert.deepEqual(limitConflicts({ lowWater: 1, highWater: 2, buffered: 2 }), []);
  assert.deepEqual(
    limitConflicts({ lowWater: 2, highWater: 2, buffered: 1 }).map(({ option }) => option),
    ["lowWater", "highWater"],
  );
});
