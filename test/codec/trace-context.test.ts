import assert from "node:assert/strict";
import { test } from "node:test";
import { digitsOf, TRACE_BYTES, traceparentOf } from "#src/codec/trace-context.js";

const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const DIGITS = TRACEPARENT.replaceAll("-", "");

test("text to digits and back", () => {
  assert.equal(digitsOf(TRACEPARENT), DIGITS);
  assert.equal(DIGITS.length, 2 * TRACE_BYTES);
  assert.equal(traceparentOf(DIGITS), TRACEPARENT);
});

test("of a later version the part that is known counts", () => {
  const later = `01${TRACEPARENT.slice(2)}`;
  assert.equal(digitsOf(later), `01${DIGITS.slice(2)}`);
  assert.equal(digitsOf(`${later}-more`), `01${DIGITS.slice(2)}`);
  assert.equal(digitsOf(`${later}more`), undefined);
});

test("what is not valid is none", () => {
  const zeros = (from: number, to: number) =>
    TRACEPARENT.slice(0, from) + "0".repeat(to - from) + TRACEPARENT.slice(to);
  for (const wrong of [
    "",
    "00",
    TRACEPARENT.toUpperCase(),
    TRACEPARENT.slice(0, -1),
    `${TRACEPARENT}-more`,
    `${TRACEPARENT}0`,
    `ff${TRACEPARENT.slice(2)}`,
    zeros(3, 35),
    zeros(36, 52),
    TRACEPARENT.replace("4", "g"),
  ]) {
    assert.equal(digitsOf(wrong), undefined, wrong);
  }
  for (const wrong of ["", DIGITS.slice(2), `ff${DIGITS.slice(2)}`, "0".repeat(52)]) {
    assert.equal(traceparentOf(wrong), undefined, wrong);
  }
});
