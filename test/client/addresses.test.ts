import assert from "node:assert/strict";
import { test } from "node:test";
import { Addresses, alternate } from "#src/client/addresses.js";
import { ClientCounters } from "#src/client/counters.js";
import { until } from "../support/until.js";

const HOUR_MS = 3_600_000;
const never = (): Promise<never> => assert.fail("looked up");

test("families in turn, beginning with that of the first address", () => {
  assert.deepEqual(alternate(["::1", "::2", "::3", "10.0.0.1"]), ["::1", "10.0.0.1", "::2", "::3"]);
  assert.deepEqual(alternate(["10.0.0.1", "::1", "::2"]), ["10.0.0.1", "::1", "::2"]);
  assert.deepEqual(alternate(["10.0.0.1", "10.0.0.2"]), ["10.0.0.1", "10.0.0.2"]);
});

test("an address is not looked up", () => {
  const counters = new ClientCounters();
  assert.deepEqual(new Addresses("127.0.0.1", never, 1, HOUR_MS, counters).get(), ["127.0.0.1"]);
  assert.deepEqual(new Addresses("::1", never, 1, HOUR_MS, counters).get(), ["::1"]);
  assert.equal(counters.lookups, 0);
});

test("a name is looked up once for all who ask, then not before its time", async () => {
  const counters = new ClientCounters();
  const addresses = new Addresses("db", async () => ["10.0.0.1", "nonsense"], HOUR_MS, HOUR_MS, counters);
  await Promise.all([addresses.get(), addresses.get()]);
  assert.deepEqual(addresses.get(), ["10.0.0.1"]);
  assert.equal(counters.lookups, 1);
});

test("old addresses serve while newer ones are looked up, and when that fails", async () => {
  const counters = new ClientCounters();
  const answers = [["10.0.0.1"], new Error("gone"), ["10.0.0.2"]];
  const resolve = async (): Promise<string[]> => {
    const next = answers.shift();
    if (next instanceof Error) throw next;
    return next ?? assert.fail("looked up once more");
  };
  const addresses = new Addresses("db", resolve, 0.001, HOUR_MS, counters);
  await addresses.get();
  await until("a moment", () => performance.now() % 1 >= 0);
  assert.deepEqual(addresses.get(), ["10.0.0.1"]);
  await until("the failure", () => counters.lookupsFailed === 1);
  assert.deepEqual(addresses.get(), ["10.0.0.1"]);
  await until("the new address", () => addresses.known[0] === "10.0.0.2");
});

test("a name without any address is an error, each time anew", async () => {
  const counters = new ClientCounters();
  const addresses = new Addresses("db", async () => [], HOUR_MS, HOUR_MS, counters);
  for (let i = 1; i <= 2; i++) {
    await assert.rejects(async () => addresses.get(), /db has no address/);
    assert.equal(counters.lookupsFailed, i);
  }
});

test("connections spread over the addresses; one that failed comes last until it works", async () => {
  const addresses = new Addresses(
    "db",
    async () => ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
    HOUR_MS,
    HOUR_MS,
    new ClientCounters(),
  );
  await addresses.get();
  const firsts = [1, 2, 3].map(() => (addresses.get() as readonly string[])[0]);
  assert.equal(new Set(firsts).size, 3);
  addresses.failed("10.0.0.2");
  for (let i = 0; i < 6; i++) assert.equal((addresses.get() as readonly string[])[2], "10.0.0.2");
  addresses.worked("10.0.0.2");
  assert.ok([1, 2, 3].some(() => (addresses.get() as readonly string[])[0] === "10.0.0.2"));
});

test("it remembers no more addresses than it may", async () => {
  const many = Array.from({ length: 200 }, (_, index) => `10.0.1.${index}`);
  const addresses = new Addresses("db", async () => many, HOUR_MS, HOUR_MS, new ClientCounters());
  assert.equal((await addresses.get()).length, 32);
});
