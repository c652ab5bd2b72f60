import assert from "node:assert/strict";
import { test } from "node:test";
import { within } from "#src/base/within.js";

const FOREVER = 3_600_000;
const never = new Promise<never>(() => {});

test("work that is done in time: its value, or its error", async () => {
  assert.equal(await within(FOREVER, Promise.resolve("done"), assert.fail), "done");
  await assert.rejects(within(FOREVER, Promise.reject(new Error("broken")), assert.fail), /broken/);
});

test("work that is late: what the caller says instead, or throws", async () => {
  assert.equal(await within(5, never, () => "late"), "late");
  const failing = within(5, never, () => {
    throw new Error("too late");
  });
  await assert.rejects(failing, /too late/);
});

test("how late work ends is nobody's business", async (t) => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", note);
  t.after(() => process.off("unhandledRejection", note));
  let fail: (error: Error) => void = () => {};
  const work = new Promise<string>((_, reject) => {
    fail = reject;
  });
  assert.equal(await within(5, work, () => "late"), "late");
  fail(new Error("broken"));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(unhandled, []);
});
