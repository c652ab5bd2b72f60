import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HeadraceError } from "#src/base/errors.js";
import { line } from "#src/codec/line.js";
import { byteByByte, cutPlaces, encode, Feeder, feed, splitAt } from "../support/splits.js";

const LIMIT = 40;
const NEWLINE = 10;

/** Bytes with many newlines and some of everything else. */
const stream = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(10, 13, 97) },
      { weight: 2, arbitrary: fc.integer({ min: 0, max: 255 }) },
    ),
    { maxLength: 300 },
  )
  .map((bytes) => Buffer.from(bytes));

const lineBytes = fc
  .uint8Array({ maxLength: LIMIT })
  .map((bytes) => Buffer.from(bytes.filter((byte) => byte !== NEWLINE)));

const codecs = {
  text: () => line(),
  bytes: () => line({ as: "bytes" }),
  borrowed: () => line({ as: "borrowed" }),
  discarding: () => line({ as: "bytes", onOversize: "discard" }),
  stripping: () => line({ as: "bytes", carriageReturn: "strip" }),
};

for (const [name, make] of Object.entries(codecs)) {
  test(`${name}: any split of the bytes gives the same lines and the same end`, () => {
    fc.assert(
      fc.property(stream, cutPlaces, (bytes, cuts) => {
        const whole = feed<string | Buffer>(make(), [bytes], LIMIT);
        for (const chunks of [splitAt(bytes, cuts), byteByByte(bytes)]) {
          const split = feed<string | Buffer>(make(), chunks, LIMIT);
          assert.deepEqual(split.messages, whole.messages);
          assert.equal(split.fault, whole.fault);
          if (name !== "discarding") assert.equal(split.left, whole.fault ? split.left : whole.left);
        }
      }),
      { numRuns: 500 },
    );
  });
}

test("lines are the bytes between newlines, whatever they are", () => {
  fc.assert(
    fc.property(fc.array(lineBytes, { maxLength: 10 }), lineBytes, cutPlaces, (lines, rest, cuts) => {
      const bytes = Buffer.concat([...lines.flatMap((each) => [each, Buffer.from("\n")]), rest]);
      const fed = feed(line({ as: "bytes" }), splitAt(bytes, cuts), LIMIT);
      assert.deepEqual(fed.messages, lines);
      assert.equal(fed.left, rest.length);
      assert.equal(fed.fault, undefined);
    }),
  );
});

test("encode and decode are inverse: bytes and text, one and many in a buffer", () => {
  const text = fc.string({ unit: "grapheme", maxLength: 12 }).filter((value) => !value.includes("\n"));
  fc.assert(
    fc.property(fc.array(text, { maxLength: 8 }), cutPlaces, (lines, cuts) => {
      const bytes = Buffer.concat(lines.map((each) => encode(line(), each, 4096)));
      assert.deepEqual(feed(line(), splitAt(bytes, cuts), 4096).messages, lines);
    }),
  );
  fc.assert(
    fc.property(fc.array(lineBytes, { maxLength: 8 }), cutPlaces, (lines, cuts) => {
      const bytes = Buffer.concat(lines.map((each) => encode(line({ as: "bytes" }), each, LIMIT)));
      assert.deepEqual(feed(line({ as: "bytes" }), splitAt(bytes, cuts), LIMIT).messages, lines);
    }),
  );
});

test("long text round-trips: past the sizes at which the codec changes its method", () => {
  for (const length of [127, 128, 129, 341, 342, 1023, 1024, 1025, 5000]) {
    for (const unit of ["a", "é", "€", "😀"]) {
      const message = unit.repeat(length);
      const bytes = encode(line(), message, 1 << 20);
      assert.equal(bytes.length, Buffer.byteLength(message) + 1);
      assert.deepEqual(feed(line(), [bytes], 1 << 20).messages, [message]);
    }
  }
});

test("a byte order mark and NUL are characters like any other", () => {
  for (const message of ["\ufeffabc", "\ufeff", "\u0000", "a\u0000b", `\ufeff${"x".repeat(2000)}`]) {
    assert.deepEqual(feed(line(), [encode(line(), message, 8192)], 8192).messages, [message]);
  }
});

test("text mode takes exactly what is UTF-8", () => {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const nearlyText = fc
    .array(
      fc.oneof(
        fc.constantFrom([0x61], [0xc3, 0xa9], [0xe2, 0x82, 0xac], [0xf0, 0x9f, 0x98, 0x80]),
        fc.constantFrom([0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xff], [0x80], [0xe2, 0x82]),
      ),
      { maxLength: 6 },
    )
    .map((parts) => Buffer.from(parts.flat()));
  fc.assert(
    fc.property(fc.oneof(nearlyText, lineBytes), fc.nat({ max: 1200 }), (bytes, padding) => {
      const all = Buffer.concat([Buffer.alloc(padding, "x"), bytes]);
      let expected: string | undefined;
      try {
        expected = strict.decode(all);
      } catch {}
      const fed = feed(line(), [Buffer.concat([all, Buffer.from("\n")])], 1 << 16);
      assert.deepEqual(fed.messages, expected === undefined ? [] : [expected]);
      assert.equal(fed.fault, expected === undefined ? "protocol-error" : undefined);
    }),
    { numRuns: 400 },
  );
});

test("the limit counts the bytes before the newline: the limit itself passes, one more does not", () => {
  for (const split of [(bytes: Buffer) => [bytes], byteByByte]) {
    const most = feed(line({ as: "bytes" }), split(Buffer.from(`${"x".repeat(LIMIT)}\n`)), LIMIT);
    assert.equal(most.messages[0]?.length, LIMIT);
    const over = feed(line({ as: "bytes" }), split(Buffer.from(`${"x".repeat(LIMIT + 1)}\n`)), LIMIT);
    assert.deepEqual(over.messages, []);
    assert.equal(over.fault, "frame-too-large");
  }
});

test("an oversized line is known at limit + 1 bytes, before its newline, and no more is ever held", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 300 }), (limit, length) => {
      const fed = feed(line({ as: "bytes" }), byteByByte(Buffer.alloc(length, "x")), limit);
      assert.equal(fed.fault, length > limit ? "frame-too-large" : undefined);
      if (length > limit) assert.equal(fed.givenAtFault, limit + 1);
      assert.ok(fed.mostHeld <= limit);
    }),
  );
});

test("random bytes: never an exception, never a line over the limit, never more held than the limit", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), cutPlaces, fc.integer({ min: 1, max: 50 }), (bytes, cuts, limit) => {
      for (const make of Object.values(codecs)) {
        const fed = feed<string | Buffer>(make(), splitAt(bytes, cuts), limit);
        for (const message of fed.messages) assert.ok(Buffer.byteLength(message) <= limit);
        assert.ok(fed.fault === undefined || ["protocol-error", "frame-too-large"].includes(fed.fault));
        assert.ok(fed.left <= limit);
      }
    }),
  );
});

test("discard drops an oversized line to its newline and goes on with the next, holding nothing of it", () => {
  const part = fc.record({ length: fc.nat({ max: 3 * LIMIT }), letter: fc.constantFrom("a", "b", "c") });
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), cutPlaces, (parts, cuts) => {
      const lines = parts.map(({ length, letter }) => letter.repeat(length));
      const bytes = Buffer.from(lines.map((each) => `${each}\n`).join(""));
      for (const chunks of [splitAt(bytes, cuts), byteByByte(bytes), [bytes]]) {
        const fed = feed(line({ onOversize: "discard" }), chunks, LIMIT);
        assert.deepEqual(
          fed.messages,
          lines.filter((each) => each.length <= LIMIT),
        );
        assert.equal(fed.fault, undefined);
        assert.equal(fed.left, 0);
      }
    }),
  );
  const endless = new Feeder(line({ onOversize: "discard" }), LIMIT);
  for (let i = 0; i < 1000; i++) endless.push(Buffer.alloc(100, "x"));
  assert.equal(endless.left, 0);
  endless.push(Buffer.from("\nnext\n"));
  assert.deepEqual(endless.messages, ["next"]);
});

test('"\\r" stays, or one is taken off the end of a line received', () => {
  const bytes = Buffer.from("a\r\n\r\nb\r\r\nc\rd\n\n");
  assert.deepEqual(feed(line(), [bytes], LIMIT).messages, ["a\r", "\r", "b\r\r", "c\rd", ""]);
  assert.deepEqual(feed(line({ carriageReturn: "strip" }), [bytes], LIMIT).messages, ["a", "", "b\r", "c\rd", ""]);
});

/** Counts how often each byte is looked at. */
class Counted {
  reads = 0;
  readonly bytes: Buffer;

  constructor(size: number) {
    const memory = Buffer.alloc(size, "x");
    this.bytes = new Proxy(memory, {
      get: (target, property) => {
        if (typeof property === "string" && /^\d+$/.test(property)) this.reads += 1;
        const value = Reflect.get(target, property) as unknown;
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  }
}

test("a long line that comes byte by byte is looked at once, not once per byte", () => {
  const size = 20_000;
  const counted = new Counted(size);
  const codec = line({ as: "bytes" });
  const cursor = { seen: 0, mode: 0 };
  for (let to = 1; to <= size; to++) assert.equal(codec.decode(counted.bytes, 0, to, cursor, size), 0);
  assert.ok(counted.reads <= 2 * size, `${counted.reads} reads for ${size} bytes`);
});

test("a borrowed line is right until the next decode, short or long", () => {
  const codec = line({ as: "borrowed" });
  const input = Buffer.from(`${"a".repeat(20)}\n${"b".repeat(20)}\n${"c".repeat(500)}\n`);
  const cursor = { seen: 0, mode: 0 };
  let from = 0;
  for (const expected of ["a".repeat(20), "b".repeat(20), "c".repeat(500)]) {
    from += codec.decode(input, from, input.length, cursor, 4096);
    assert.equal(codec.message.toString(), expected);
  }
});

test("owned lines outlive the input and the next decode", () => {
  const codec = line({ as: "bytes" });
  const input = Buffer.from("first\nother\n");
  const cursor = { seen: 0, mode: 0 };
  codec.decode(input, 0, 12, cursor, 100);
  const first = codec.message;
  codec.decode(input, 6, 12, cursor, 100);
  input.fill(0);
  assert.equal(first.toString(), "first");
});

test("what a line cannot carry is refused: over the limit, or with a newline", () => {
  const refusal = (code: string) => (error: unknown) => error instanceof HeadraceError && error.code === code;
  for (const make of [(text: string) => text, (text: string) => Buffer.from(text)]) {
    encode(line(), make("x".repeat(LIMIT)), LIMIT);
    assert.throws(() => encode(line(), make("x".repeat(LIMIT + 1)), LIMIT), refusal("frame-too-large"));
    assert.throws(() => encode(line(), make("é".repeat(LIMIT / 2 + 1)), LIMIT), refusal("frame-too-large"));
    for (const text of ["\n", "a\n", "\nb", `${"x".repeat(200)}\n${"y".repeat(200)}`]) {
      assert.throws(() => encode(line(), make(text), 4096), refusal("frame-invalid"));
    }
    assert.equal(encode(line(), make(""), LIMIT).toString(), "\n");
  }
});
