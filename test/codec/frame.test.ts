import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HeadraceError } from "#src/base/errors.js";
import { frame } from "#src/codec/frame.js";
import { byteByByte, cutPlaces, encode, feed, splitAt } from "../support/splits.js";

const LIMIT = 300;
const PREFIX = 4;

function prefix(length: number): Buffer {
  const bytes = Buffer.alloc(PREFIX);
  bytes.writeUInt32BE(length);
  return bytes;
}

const payload = fc.uint8Array({ minLength: 1, maxLength: LIMIT }).map((bytes) => Buffer.from(bytes));
const refusal = (code: string) => (error: unknown) => error instanceof HeadraceError && error.code === code;

for (const as of ["bytes", "borrowed"] as const) {
  const make = () => (as === "bytes" ? frame() : frame({ as: "borrowed" }));

  test(`${as}: encode and decode are inverse over any split`, () => {
    fc.assert(
      fc.property(fc.array(payload, { maxLength: 8 }), cutPlaces, (payloads, cuts) => {
        const bytes = Buffer.concat(payloads.map((each) => encode(make(), each, LIMIT)));
        for (const chunks of [[bytes], splitAt(bytes, cuts), byteByByte(bytes)]) {
          const fed = feed(make(), chunks, LIMIT);
          assert.deepEqual(fed.messages, payloads);
          assert.equal(fed.left, 0);
          assert.equal(fed.fault, undefined);
        }
      }),
    );
  });

  test(`${as}: random bytes are frames or a fault, the same for any split, and bounded`, () => {
    const lengths = fc.oneof(fc.constantFrom(0, 1, 2, LIMIT, LIMIT + 1, 2 ** 31, 2 ** 32 - 1), fc.nat({ max: 20 }));
    const part = fc.tuple(lengths, fc.uint8Array({ maxLength: 24 }));
    const streams = fc
      .array(part, { maxLength: 8 })
      .map((parts) => Buffer.concat(parts.flatMap(([length, bytes]) => [prefix(length), bytes])));
    fc.assert(
      fc.property(fc.oneof(streams, fc.uint8Array({ maxLength: 200 })), cutPlaces, (bytes, cuts) => {
        const whole = feed(make(), [bytes], LIMIT);
        for (const chunks of [splitAt(bytes, cuts), byteByByte(bytes)]) {
          const fed = feed(make(), chunks, LIMIT);
          assert.deepEqual(fed.messages, whole.messages);
          assert.equal(fed.fault, whole.fault);
          assert.ok(fed.mostHeld < LIMIT + PREFIX + Math.max(0, ...chunks.map((chunk) => chunk.length)));
          for (const message of fed.messages) assert.ok(message.length >= 1 && message.length <= LIMIT);
        }
      }),
      { numRuns: 400 },
    );
  });
}

test("length 0 and lengths over the limit are faults as soon as the four bytes are there", () => {
  const cases = [
    { length: 0, fault: "frame-empty" },
    { length: LIMIT + 1, fault: "frame-too-large" },
    { length: 2 ** 31 - 1, fault: "frame-too-large" },
    { length: 2 ** 31, fault: "frame-too-large" },
    { length: 2 ** 32 - 1, fault: "frame-too-large" },
  ];
  for (const { length, fault } of cases) {
    const fed = feed(frame(), byteByByte(prefix(length)), LIMIT);
    assert.equal(fed.fault, fault);
    assert.equal(fed.givenAtFault, PREFIX);
  }
  for (const length of [1, LIMIT]) {
    const fed = feed(frame(), byteByByte(Buffer.concat([prefix(length), Buffer.alloc(length, 7)])), LIMIT);
    assert.equal(fed.messages[0]?.length, length);
    assert.equal(fed.fault, undefined);
  }
});

test("an unfinished frame needs more and looks at nothing beyond its own bytes", () => {
  const codec = frame();
  const bytes = Buffer.concat([prefix(10), Buffer.alloc(10, 1)]);
  for (let to = 0; to < bytes.length; to++) {
    assert.equal(codec.decode(bytes, 0, to, { seen: 0, mode: 0 }, LIMIT), 0);
  }
  assert.equal(codec.decode(bytes, 0, bytes.length, { seen: 0, mode: 0 }, LIMIT), bytes.length);
});

test("text is sent as UTF-8; an empty message and one over the limit are refused", () => {
  assert.deepEqual(encode(frame(), "é€", LIMIT), Buffer.concat([prefix(5), Buffer.from("é€")]));
  assert.equal(encode(frame(), "x".repeat(LIMIT), LIMIT).length, LIMIT + PREFIX);
  for (const empty of ["", Buffer.alloc(0)]) {
    assert.throws(() => encode(frame(), empty, LIMIT), refusal("frame-invalid"));
  }
  for (const large of ["x".repeat(LIMIT + 1), "€".repeat(101), Buffer.alloc(LIMIT + 1)]) {
    assert.throws(() => encode(frame(), large, LIMIT), refusal("frame-too-large"));
  }
});

test("a large frame survives the round trip, and its length its four bytes", () => {
  for (const size of [255, 256, 65_535, 65_536, 1 << 20]) {
    const message = Buffer.alloc(size, 0x5a);
    const bytes = encode(frame(), message, 1 << 20);
    assert.deepEqual(bytes.subarray(0, PREFIX), prefix(size));
    assert.ok(feed(frame(), [bytes], 1 << 20).messages[0]?.equals(message));
  }
});

test("a subarray of a larger buffer and a plain Uint8Array are messages too", () => {
  const pool = Buffer.from("....hello....");
  for (const message of [
    pool.subarray(4, 9),
    new Uint8Array(Buffer.from("hello")),
    new Uint8Array(pool.buffer, pool.byteOffset + 4, 5),
  ]) {
    assert.deepEqual(encode(frame(), message, LIMIT), Buffer.concat([prefix(5), Buffer.from("hello")]));
  }
});
