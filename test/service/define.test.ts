import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadraceError } from "#src/base/errors.js";
import { line } from "#src/codec/line.js";
import { defineService, isService } from "#src/service/define.js";

const GOOD = { codec: line(), onMessage: (text: string) => text };

function refusal(definition: unknown): HeadraceError {
  try {
    defineService(definition as typeof GOOD);
  } catch (error) {
    assert.ok(error instanceof HeadraceError, String(error));
    assert.equal(error.code, "service-invalid");
    return error;
  }
  throw new assert.AssertionError({ message: "accepted" });
}

test("a definition is completed: name, order, limits in bytes, timeouts in ms", () => {
  const service = defineService({
    ...GOOD,
    limits: { frame: "64KiB", inFlight: 3, buffered: 1_000_000 },
    timeouts: { idle: "2m", frame: "500ms", firstByte: "off" },
  });
  assert.equal(service.name, "line");
  assert.equal(service.concurrency, "serial");
  assert.deepEqual(service.limits, { frame: 65_536, inFlight: 3, buffered: 1_000_000 });
  assert.deepEqual(service.timeouts, { idle: 120_000, frame: 500, firstByte: "off" });
  assert.equal(service.stateVersion, 1);
  assert.equal(service.migrate, true);
  const moving = defineService({ ...GOOD, stateVersion: 4, migrate: false, resume: () => {}, takeOver: () => {} });
  assert.deepEqual([moving.stateVersion, moving.migrate], [4, false]);
  assert.ok(isService(service));
  for (const other of [undefined, null, 1, "x", {}, GOOD, () => service]) assert.equal(isService(other), false);
});

test("what is wrong is refused, naming the property and what is allowed", () => {
  const cases: [unknown, RegExp][] = [
    [undefined, /expects an object/],
    [null, /expects an object/],
    ["echo", /expects an object/],
    [{}, /codec: missing/],
    [{ ...GOOD, codec: undefined }, /codec/],
    [{ ...GOOD, codec: line }, /codec: missing or not a codec/],
    [{ ...GOOD, codec: { decode() {} } }, /codec/],
    [{ codec: line() }, /onMessage: missing.*\(message, context\)/],
    [{ ...GOOD, onMessage: "echo" }, /onMessage: not a function/],
    [{ ...GOOD, onmessage: () => {} }, /onmessage: unknown; did you mean onMessage\?/],
    [{ ...GOOD, onClose: 1 }, /onClose: not a function/],
    [{ ...GOOD, state: {} }, /state: not a function/],
    [{ ...GOOD, concurrency: "parallel" }, /concurrency: "parallel" is unknown; allowed: serial, ordered, unordered/],
    [
      { ...GOOD, suspend: () => new Uint8Array() },
      /resume: missing, but there is a suspend; allowed: both, or no suspend/,
    ],
    [{ ...GOOD, handOff: () => new Uint8Array() }, /takeOver: missing, but there is a handOff/],
    [{ ...GOOD, suspend: true, resume: () => {} }, /suspend: not a function/],
    [{ ...GOOD, resume: {} }, /resume: not a function/],
    [{ ...GOOD, takeOver: 1 }, /takeOver: not a function/],
    [{ ...GOOD, stateVersion: 0 }, /stateVersion: not a version; allowed: a whole number, 1 or more/],
    [{ ...GOOD, stateVersion: 1.5 }, /stateVersion/],
    [{ ...GOOD, stateVersion: "2" }, /stateVersion/],
    [{ ...GOOD, migrate: "no" }, /migrate: not a boolean; allowed: true or false/],
    [{ ...GOOD, cancels: () => 1 }, /requestId: missing, but there is a cancels/],
    [{ ...GOOD, deadline: 5 }, /deadline: not a function/],
    [{ ...GOOD, farewell: "soon" }, /farewell: .*allowed/],
    [{ ...GOOD, use: () => {} }, /use: not a list of functions/],
    [{ ...GOOD, use: [1] }, /use: not a list of functions/],
    [{ ...GOOD, limits: { frames: 1 } }, /limits\.frames: unknown; allowed: .*frame/],
    [{ ...GOOD, limits: { frame: 0 } }, /limits\.frame/],
    [{ ...GOOD, limits: { frame: "1 MB" } }, /limits\.frame/],
    [{ ...GOOD, limits: { inFlight: -1 } }, /limits\.inFlight/],
    [{ ...GOOD, limits: { inFlight: 1.5 } }, /limits\.inFlight/],
    [{ ...GOOD, limits: { constructor: 1 } }, /limits\.constructor: unknown/],
    [{ ...GOOD, timeouts: { idle: 10 } }, /timeouts\.idle/],
    [{ ...GOOD, timeouts: { idle: "0s" } }, /timeouts\.idle/],
    [{ ...GOOD, timeouts: { drain: "1s" } }, /timeouts\.drain: unknown/],
  ];
  for (const [definition, message] of cases) assert.match(refusal(definition).message, message);
});

test("groups that are not objects are refused, not read letter by letter", () => {
  for (const wrong of ["1MiB", 5, [1], true]) {
    assert.match(refusal({ ...GOOD, limits: wrong }).message, /limits/);
    assert.match(refusal({ ...GOOD, timeouts: wrong }).message, /timeouts/);
  }
});

test("a name that is not a text is refused", () => {
  for (const wrong of [5, {}, ""]) assert.match(refusal({ ...GOOD, name: wrong }).message, /name/);
});
