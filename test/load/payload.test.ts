import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type RpcRequest, rpc } from "#src/codec/rpc.js";
import { LOAD_CODECS, type LoadCodec } from "#src/load/options.js";
import { Payload } from "#src/load/payload.js";
import { feed } from "../support/splits.js";

/** Of an rpc frame. */
const KIND_AT = 4;

const codec = fc.constantFrom(...LOAD_CODECS);
const size = fc.oneof(fc.integer({ min: 2, max: 20 }), fc.integer({ min: 2, max: 1000 }));
const number = fc.integer({ min: 0, max: 2 ** 24 });

/** Behind `lead` bytes, so that not every message lies on a word boundary. */
function written(payload: Payload, connection: number, sequence: number, lead = 0): Buffer {
  const bytes = Buffer.alloc(lead + payload.bytes);
  payload.write(bytes, lead, connection, sequence);
  return bytes;
}

/** What comes back of it. */
function replied(codec: LoadCodec, ...args: Parameters<typeof written>): Buffer {
  const bytes = written(...args);
  if (codec === "rpc") bytes[(args[3] ?? 0) + KIND_AT] = 2;
  return bytes;
}

test("what was written is right, however it is split and wherever it lies", () => {
  const property = fc.property(
    codec,
    size,
    number,
    number,
    fc.integer({ min: 0, max: 9 }),
    fc.array(fc.nat(1100), { maxLength: 4 }),
    (codec, size, connection, sequence, lead, cuts) => {
      const payload = new Payload(codec, size);
      const bytes = replied(codec, payload, connection, sequence, lead);
      const ends = [...cuts.map((cut) => cut % payload.bytes), payload.bytes].sort((a, b) => a - b);
      let position = 0;
      for (const end of ends) {
        assert.equal(payload.check(bytes, lead + position, lead + end, position, connection, sequence), -1);
        position = end;
      }
    },
  );
  fc.assert(property, { numRuns: 500 });
});

test("one wrong byte is found at its place", () => {
  const property = fc.property(codec, size, number, number, fc.nat(), (codec, size, connection, sequence, place) => {
    const payload = new Payload(codec, size);
    const bytes = replied(codec, payload, connection, sequence);
    const at = place % bytes.length;
    bytes[at] = (bytes[at] as number) ^ 1;
    assert.equal(payload.check(bytes, 0, bytes.length, 0, connection, sequence), at);
    assert.equal(payload.byteAt(at, connection, sequence), (bytes[at] as number) ^ 1);
  });
  fc.assert(property, { numRuns: 500 });
});

test("a large message, longer than a loop is quick for, is compared as exactly", () => {
  const payload = new Payload("raw", 100_000);
  const bytes = written(payload, 7, 9);
  assert.equal(payload.check(bytes, 0, 100_000, 0, 7, 9), -1);
  bytes[99_999] = 0;
  assert.equal(payload.check(bytes, 0, 100_000, 0, 7, 9), 99_999);
  assert.equal(payload.check(bytes, 50_000, 99_999, 50_000, 7, 9), -1);
});

test("another connection's message and another message of the same connection are wrong", () => {
  for (const codec of LOAD_CODECS) {
    for (const size of [5, 8, 64, 300]) {
      const payload = new Payload(codec, size);
      const bytes = replied(codec, payload, 3, 10);
      for (const [connection, sequence] of [
        [4, 10],
        [3, 11],
        [3, 9],
        [4, 9],
        [67, 10],
      ] as const) {
        assert.notEqual(payload.check(bytes, 0, payload.bytes, 0, connection, sequence), -1, `${codec} ${size}`);
      }
    }
  }
});

test("a line holds one newline, at its end; a frame begins with its length", () => {
  const text = (codec: LoadCodec, size: number): string => written(new Payload(codec, size), 1000, 5000).toString();
  for (const size of [2, 5, 64, 999]) {
    assert.match(text("line", size), /^[0-o]+\n$/);
    assert.equal(text("line", size).length, size);
    assert.match(text("raw", size), /^[0-o]+$/);
    const frame = written(new Payload("frame", size), 1000, 5000);
    assert.equal(frame.readUInt32BE(0), size);
    assert.equal(frame.length, 4 + size);
  }
});

test("an rpc message is a request whose id is its number", () => {
  for (const size of [2, 5, 64, 999]) {
    const bytes = written(new Payload("rpc", size), 1000, 5000);
    const { messages, fault, left } = feed(rpc(), [bytes], 1 << 20);
    assert.deepEqual([messages.length, fault, left], [1, undefined, 0]);
    const [request] = messages as [RpcRequest];
    assert.deepEqual([request.kind, request.id, request.deadlineMs], ["request", 5000, 0]);
    assert.equal(request.payload.toString(), written(new Payload("raw", size), 1000, 5000).toString());
  }
});
