import assert from "node:assert/strict";
import { test } from "node:test";
import { type ErrorCode, exitCodeOf, HeadraceError, messageOf } from "#src/base/errors.js";

const exitOf = (code: ErrorCode): number => exitCodeOf(new HeadraceError(code, "x"));

test("the exit code tells a wrong configuration, a busy server and a failure apart", () => {
  assert.deepEqual(
    ["config-invalid", "usage", "service-invalid"].map((code) => exitOf(code as ErrorCode)),
    [2, 2, 2],
  );
  assert.equal(exitOf("busy"), 75);
  assert.deepEqual(
    ["change-failed", "change-refused", "system"].map((code) => exitOf(code as ErrorCode)),
    [1, 1, 1],
  );
  assert.equal(exitCodeOf(new Error("a bug")), 1);
  assert.equal(exitCodeOf("thrown"), 1);
});

test("whatever is thrown has a message", () => {
  assert.equal(messageOf(new Error("a bug")), "a bug");
  assert.equal(messageOf(undefined), "undefined");
  assert.equal(messageOf(Object.create(null)), "an error that cannot be shown as text");
});
