import assert from "node:assert/strict";
import { test } from "node:test";
import { nearest } from "#src/config/nearest.js";

const known = ["noDelay", "keepAlive", "keepAliveInterval", "linger", "backlog"];

test("a mistyped name finds the one that was meant", () => {
  assert.equal(nearest("no_delay", known), "noDelay");
  assert.equal(nearest("nodealy", known), "noDelay");
  assert.equal(nearest("keepalive-intervall", known), "keepAliveInterval");
  assert.equal(nearest("blacklog", known), "backlog");
  assert.equal(nearest("idel", ["idle"], 0.25), "idle", "two swapped letters are one mistake");
});

test("a name that resembles nothing finds nothing, unless any will do", () => {
  assert.equal(nearest("colour", known), undefined);
  assert.equal(nearest("", known), undefined);
  assert.ok(nearest("colour", known, Number.POSITIVE_INFINITY));
  assert.equal(nearest("x", []), undefined);
});

test("a very long name costs no more than a long one", () => {
  assert.equal(nearest("x".repeat(1_000_000), known), undefined);
});
