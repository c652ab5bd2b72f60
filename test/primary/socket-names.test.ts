/** Names in the descriptor store: systemd takes them, they say what they stand for, and nothing else passes for one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseSocketName, socketName } from "#src/primary/socket-names.js";

const key = fc
  .tuple(
    fc.constantFrom("tcp", "udp"),
    fc.oneof(fc.ipV4(), fc.ipV6()),
    fc.integer({ min: 0, max: 65_535 }),
    fc.boolean(),
    fc.option(fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/), { nil: undefined }),
  )
  .map((parts) => parts.filter((part) => part !== undefined).join("|"));
const slot = fc.integer({ min: 0, max: 255 });

test("every listener's key comes back, with its slot", () => {
  fc.assert(
    fc.property(key, slot, (key, slot) => {
      assert.deepEqual(parseSocketName(socketName(key, slot)), { key, slot });
    }),
  );
});

test("so does any text", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", minLength: 1 }), slot, (key, slot) => {
      assert.deepEqual(parseSocketName(socketName(key, slot)), { key, slot });
    }),
  );
});

test("systemd takes every name: printable ASCII, no colon, at most 255", () => {
  fc.assert(
    fc.property(key, slot, (key, slot) => {
      assert.match(socketName(key, slot), /^[\x20-\x39\x3b-\x7e]{1,255}$/);
    }),
  );
});

test("different sockets have different names", () => {
  fc.assert(
    fc.property(key, slot, key, slot, (key, slot, otherKey, otherSlot) => {
      const same = key === otherKey && slot === otherSlot;
      assert.equal(socketName(key, slot) === socketName(otherKey, otherSlot), same);
    }),
  );
});

test("what people see of it can be read", () => {
  assert.equal(socketName("tcp|0.0.0.0|9000|false", 0), "slot-0|tcp|0.0.0.0|9000|false");
  assert.equal(socketName("tcp|::1|0|true|game", 3), "slot-3|tcp|%3A%3A1|0|true|game");
});

for (const name of [
  "",
  "unknown",
  "stored",
  "headrace.socket",
  "slot-",
  "slot-1",
  "slot-1|",
  "slot-01|tcp",
  "slot--1|tcp",
  "slot-1.5|tcp",
  "slot-12345|tcp",
  "slot-1|tcp|::1|9000|false",
  "slot-1|tcp|%3a%3a1|9000|false",
  "slot-1|%74cp",
  "slot-1|%",
  "slot-1|%ff",
  "slot-1|tcp x",
  " slot-1|tcp",
  "slot-1|tcp\n",
]) {
  test(`${JSON.stringify(name)} is not one of ours`, () => {
    assert.equal(parseSocketName(name), undefined);
  });
}

test("no text makes it throw, and what it accepts it would write the same", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^slot-\d{1,5}\|[%A-F0-9a-f.|:]{0,20}$/)), (name) => {
      const place = parseSocketName(name);
      if (place) assert.equal(socketName(place.key, place.slot), name);
    }),
  );
});
