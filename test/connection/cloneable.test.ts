import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { deserialize, serialize } from "node:v8";
import fc from "fast-check";
import { uncloneable } from "#src/connection/cloneable.js";

test("what is called cloneable is the same after a clone", () => {
  const leaf = fc.oneof(
    fc.anything({ withBigInt: true, withMap: true, withSet: true, withTypedArray: true, maxDepth: 3 }),
    // Two invalid dates are never equal to node:assert.
    fc.date({ noInvalidDate: true }),
    fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    fc.constantFrom(/x/g, new Error("plain")),
  );
  fc.assert(
    fc.property(fc.dictionary(fc.string(), leaf, { noNullPrototype: true }), (state) => {
      assert.equal(uncloneable(state), undefined);
      assert.deepEqual(deserialize(serialize(state)), state);
    }),
    { numRuns: 500 },
  );
});

test("what a clone would lose or refuse is found, wherever it stands, and named", () => {
  class Session {
    user = "x";
  }
  const cases: [unknown, string][] = [
    [new Session(), "state is a Session"],
    [{ session: new Session() }, "state.session is a Session"],
    [{ list: [1, { deep: new EventEmitter() }] }, "state.list[1].deep is a EventEmitter"],
    [{ call: () => 1 }, "state.call is a function"],
    [{ kind: Symbol("x") }, "state.kind is a symbol"],
    [new Map([["a", Promise.resolve()]]), "state.get(a) is a Promise"],
    [new Map([[new Session(), 1]]), "state (a key) is a Session"],
    [new Set([new WeakMap()]), "state (a member) is a WeakMap"],
    [{ bytes: new Uint8Array(new SharedArrayBuffer(4)) }, "state.bytes is shared memory"],
    [{ made: Object.create({ inherited: 1 }) }, "state.made is a Object"],
  ];
  for (const [state, found] of cases) assert.equal(uncloneable(state), found);
});

test("a state that refers to itself, or is very deep, is looked through once", () => {
  const loop: { self?: unknown } = {};
  loop.self = loop;
  assert.equal(uncloneable(loop), undefined);
  let deep: unknown = 1;
  for (let i = 0; i < 50_000; i++) deep = { deep };
  assert.equal(uncloneable(deep), undefined);
});
