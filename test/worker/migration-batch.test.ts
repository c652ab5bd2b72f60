import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { OWN_DEADLINES } from "#src/connection/deadlines.js";
import { STATE_KINDS } from "#src/connection/moved.js";
import type { Origin } from "#src/connection/origin.js";
import { type BatchEntry, decodeBatch, encodeRecord } from "#src/worker/migration-batch.js";
import { WAITING_BYTES_MAX, WaitingIn, WaitingOut } from "#src/worker/migration-waiting.js";

const bytes = fc.uint8Array({ maxLength: 300 }).map((each) => Buffer.from(each));
/** That several connections wait for. */
const SHARED = ["a", "", "a longer one"].map((text) => Buffer.from(text));
const clock = fc.double({ noNaN: true });
const plain = { noNullPrototype: true } as const;
const peer = fc.record({ host: fc.ipV6(), port: fc.nat(65_535) }, plain);
const tlv = fc.record({ type: fc.nat(255), value: bytes }, plain);
const proxy = fc.record(
  {
    version: fc.constantFrom(1, 2),
    local: fc.boolean(),
    destination: peer,
    unix: fc.record({ source: fc.string({ unit: "grapheme" }), destination: fc.string() }, plain),
    tlvs: fc.array(tlv, { maxLength: 3 }),
  },
  { ...plain, requiredKeys: ["version", "local", "tlvs"] },
);
const origin: fc.Arbitrary<Origin> = fc.record({ peer, proxy }, { ...plain, requiredKeys: [] });
const entry: fc.Arbitrary<BatchEntry> = fc.record(
  {
    endpoint: fc.nat(63),
    record: fc.record(
      {
        id: fc.string({ unit: "grapheme", maxLength: 40 }),
        remote: fc.record({ host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.constant("")), port: fc.nat(65_535) }, plain),
        origin: fc.option(origin, { nil: undefined }),
        received: clock,
        sent: clock,
        receivedAt: clock,
        progressAt: clock,
        frameSince: clock,
        busyUntil: clock,
        seen: clock,
        mode: clock,
        requests: clock,
        openedAt: clock,
        own: fc.oneof(
          fc.constant([]),
          fc.array(fc.oneof(clock, fc.constant(Number.NaN)), {
            minLength: OWN_DEADLINES.length,
            maxLength: OWN_DEADLINES.length,
          }),
        ),
        topics: fc.array(fc.string({ unit: "grapheme", maxLength: 20 }), { maxLength: 4 }),
        waiting: fc.array(fc.oneof(bytes, fc.constantFrom(...SHARED)), { maxLength: 5 }),
        beat: fc.record({ pingedAt: clock, missed: clock, activeAt: clock }, plain),
        backedUp: fc.boolean(),
        pausedByUser: fc.boolean(),
        inputEnded: fc.boolean(),
        reading: fc.boolean(),
        held: bytes,
        unsent: bytes,
        state: fc.record({ kind: fc.constantFrom(...STATE_KINDS), bytes }, plain),
      },
      plain,
    ),
  },
  plain,
);

function encode(entries: readonly BatchEntry[], waiting: WaitingOut = new WaitingOut()): Buffer {
  return Buffer.concat(entries.flatMap((entry) => encodeRecord(entry, waiting)));
}

const decode = (batch: Buffer, count: number, waiting: WaitingIn = new WaitingIn()): BatchEntry[] =>
  decodeBatch(batch, count, waiting);

test("what is decoded is what was encoded", () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 10 }), (entries) => {
      assert.deepEqual(decode(encode(entries), entries.length), entries);
    }),
  );
});

test("a batch that is cut short, too long or of another count is refused", () => {
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 5 }), fc.nat(), fc.nat(), (entries, cut, count) => {
      const whole = encode(entries);
      assert.throws(() => decode(whole.subarray(0, cut % whole.length), entries.length), RangeError);
      assert.throws(() => decode(Buffer.concat([whole, Buffer.alloc(1)]), entries.length), RangeError);
      if (count % 10 !== entries.length) assert.throws(() => decode(whole, count % 10), RangeError);
    }),
  );
});

test("random bytes are refused, or decoded within their bounds", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2_000 }), fc.nat(5), (random, count) => {
      try {
        const entries = decode(Buffer.from(random), count);
        const sizes = entries.map(
          ({ record }) => record.held.length + record.unsent.length + record.state.bytes.length,
        );
        assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= random.length);
      } catch (error) {
        assert.ok(error instanceof RangeError, String(error));
      }
    }),
    { numRuns: 2_000 },
  );
});

const waitingFor = (waiting: readonly Buffer[]): BatchEntry => {
  const [entry_] = fc.sample(entry, { numRuns: 1, seed: 1 }) as [BatchEntry];
  return { ...entry_, record: { ...entry_.record, waiting } };
};

test("what many wait for travels once in a move, and is one there too", () => {
  const message = Buffer.alloc(100_000, "m");
  const [out, into] = [new WaitingOut(), new WaitingIn()];
  const [first, second] = [encode([waitingFor([message])], out), encode([waitingFor([message, message])], out)];
  assert.ok(first.length > 100_000 && second.length < 10_000, `${first.length}, ${second.length}`);
  const [[there], [other]] = [decode(first, 1, into), decode(second, 1, into)];
  assert.deepEqual(there?.record.waiting, [message]);
  for (const each of other?.record.waiting ?? []) assert.equal(each, there?.record.waiting[0]);
  assert.throws(() => decode(second, 1), RangeError);
});

test("more than a move may hold: the oldest stay behind, and are counted", () => {
  const messages = Array.from({ length: 5 }, (_, index) => Buffer.alloc(WAITING_BYTES_MAX / 4, index));
  const [out, into] = [new WaitingOut(), new WaitingIn()];
  const [there] = decode(encode([waitingFor(messages)], out), 1, into);
  assert.deepEqual(
    there?.record.waiting.map((message) => message[0]),
    [1, 2, 3, 4],
  );
  assert.equal(out.dropped, 1);
  const [other] = decode(encode([waitingFor([...messages, Buffer.from("new")])], out), 1, into);
  assert.deepEqual(
    other?.record.waiting.map((message) => message[0]),
    [1, 2, 3, 4],
    "what is there already costs nothing",
  );
});
