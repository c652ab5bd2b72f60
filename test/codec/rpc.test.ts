import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HeadraceError } from "#src/base/errors.js";
import {
  GOODBYE,
  LAST_GOODBYE,
  type RpcCancel,
  type RpcGoodbye,
  type RpcReply,
  type RpcRequest,
  rpc,
  rpcClient,
} from "#src/codec/rpc.js";
import { byteByByte, cutPlaces, encode, feed, splitAt } from "../support/splits.js";

const LIMIT = 300;
const HEADER = 16;
const TRACE = 26;
const TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type Incoming = RpcRequest | RpcCancel;
type Outgoing = RpcReply | RpcGoodbye;

/** A received message without its class, and with a payload that stays. */
function plain(message: Incoming | Outgoing): object {
  if (message.kind === "request") {
    const { kind, id, priority, deadlineMs, traceparent } = message;
    return { kind, id, priority, deadlineMs, traceparent, payload: Buffer.from(message.payload) };
  }
  return message.kind === "reply" ? { ...message, payload: Buffer.from(message.payload) } : { ...message };
}

/** As the two sides: of borrowed payloads a copy must be made before the next decode. */
class Copying<In extends Incoming | Outgoing> {
  readonly name = "rpc";
  readonly borrowed = false;
  message: object = {};
  readonly #codec: ReturnType<typeof rpc> | ReturnType<typeof rpcClient>;

  constructor(codec: ReturnType<typeof rpc> | ReturnType<typeof rpcClient>) {
    this.#codec = codec;
  }

  get fault() {
    return this.#codec.fault;
  }

  decode(...args: Parameters<ReturnType<typeof rpc>["decode"]>): number {
    const used = this.#codec.decode(...args);
    if (used > 0) this.message = plain(this.#codec.message as In);
    return used;
  }

  sizeOf(): number {
    throw new Error("not asked for here");
  }

  encodeInto(): number {
    throw new Error("not asked for here");
  }
}

const id = fc.oneof(fc.constantFrom(0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1), fc.nat());
const payload = fc.uint8Array({ maxLength: LIMIT }).map((bytes) => Buffer.from(bytes));
const hex = (digits: number) =>
  fc.array(fc.nat({ max: 15 }), { minLength: digits, maxLength: digits }).map((each) => {
    const text = each.map((digit) => digit.toString(16)).join("");
    return /^0+$/.test(text) ? `1${text.slice(1)}` : text;
  });
const traceparent = fc
  .tuple(hex(32), hex(16), hex(2))
  .map(([trace, parent, flags]) => `00-${trace}-${parent}-${flags}`);
const incoming: fc.Arbitrary<Incoming> = fc.oneof(
  fc.record({
    kind: fc.constant("request" as const),
    id,
    priority: fc.constantFrom("high", "normal", "low"),
    deadlineMs: fc.oneof(fc.constantFrom(0, 1, 2 ** 32 - 1), fc.nat()),
    traceparent: fc.option(traceparent, { nil: undefined }),
    payload,
  }),
  fc.record({ kind: fc.constant("cancel" as const), id }),
);
const outgoing: fc.Arbitrary<Outgoing> = fc.oneof(
  fc.record({
    kind: fc.constant("reply" as const),
    id,
    status: fc.constantFrom("ok", "error", "busy", "deadline"),
    payload,
  }),
  fc.constantFrom(GOODBYE, LAST_GOODBYE),
);

const sides = (as: "bytes" | "borrowed") => ({
  server: () => new Copying<Incoming>(as === "bytes" ? rpc() : rpc({ as: "borrowed" })),
  client: () => new Copying<Outgoing>(as === "bytes" ? rpcClient() : rpcClient({ as: "borrowed" })),
});

for (const as of ["bytes", "borrowed"] as const) {
  const { server, client } = sides(as);

  test(`${as}: what one side sends, the other receives, over any split`, () => {
    const check = (
      make: () => Copying<Incoming | Outgoing>,
      sent: (Incoming | Outgoing)[],
      bytes: Buffer,
      cuts: number[],
    ) => {
      for (const chunks of [[bytes], splitAt(bytes, cuts), byteByByte(bytes)]) {
        const fed = feed(make(), chunks, LIMIT);
        assert.equal(fed.fault, undefined);
        assert.deepEqual(fed.messages, sent.map(plain));
        assert.equal(fed.left, 0);
      }
    };
    fc.assert(
      fc.property(
        fc.array(incoming, { maxLength: 6 }),
        fc.array(outgoing, { maxLength: 6 }),
        cutPlaces,
        (requests, replies, cuts) => {
          check(server, requests, Buffer.concat(requests.map((each) => encode(rpcClient(), each, LIMIT))), cuts);
          check(client, replies, Buffer.concat(replies.map((each) => encode(rpc(), each, LIMIT))), cuts);
        },
      ),
    );
  });

  test(`${as}: random bytes are frames or a fault, the same for any split, and bounded`, () => {
    const lengths = fc.oneof(
      fc.constantFrom(
        0,
        1,
        11,
        12,
        13,
        37,
        38,
        39,
        LIMIT + 12,
        LIMIT + 13,
        LIMIT + 38,
        LIMIT + 39,
        2 ** 31,
        2 ** 32 - 1,
      ),
      fc.nat({ max: 60 }),
    );
    const small = fc.nat({ max: 5 });
    const part = fc
      .tuple(
        lengths,
        small,
        fc.constantFrom(0, 1, 2),
        small,
        fc.constantFrom(0, 0, 0, 1),
        fc.uint8Array({ maxLength: 60 }),
      )
      .map(([length, kind, flags, grade, reserved, rest]) => {
        const prefix = Buffer.alloc(4);
        prefix.writeUInt32BE(length);
        return Buffer.concat([prefix, Buffer.from([kind, flags, grade, reserved]), rest]);
      });
    const streams = fc.array(part, { maxLength: 5 }).map((parts) => Buffer.concat(parts));
    fc.assert(
      fc.property(fc.oneof(streams, fc.uint8Array({ maxLength: 200 })), cutPlaces, (bytes, cuts) => {
        for (const make of [server, client]) {
          const whole = feed<object>(make(), [bytes], LIMIT);
          for (const chunks of [splitAt(bytes, cuts), byteByByte(bytes)]) {
            const fed = feed<object>(make(), chunks, LIMIT);
            assert.deepEqual(fed.messages, whole.messages);
            assert.equal(fed.fault, whole.fault);
            assert.ok(fed.mostHeld < LIMIT + HEADER + TRACE + Math.max(0, ...chunks.map((chunk) => chunk.length)));
          }
        }
      }),
      { numRuns: 1_000 },
    );
  });
}

const request = (over: Partial<RpcRequest<string>> = {}): RpcRequest<string> => ({
  kind: "request",
  id: 0x01020304,
  priority: "low",
  deadlineMs: 500,
  traceparent: undefined,
  payload: "hi",
  ...over,
});

test("each frame is, byte for byte, what the format says", () => {
  const cases: [Buffer, string][] = [
    [encode(rpcClient(), request(), LIMIT), "0000000e 01 00 02 00 01020304 000001f4 6869"],
    [
      encode(rpcClient(), request({ traceparent: TRACEPARENT, priority: "high", deadlineMs: 0 }), LIMIT),
      "00000028 01 01 01 00 01020304 00000000 00 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 01 6869",
    ],
    [encode(rpcClient(), { kind: "cancel", id: 7 }, LIMIT), "0000000c 03 00 00 00 00000007 00000000"],
    [
      encode(rpc(), { kind: "reply", id: 2 ** 32 - 1, status: "deadline", payload: "é" }, LIMIT),
      "0000000e 02 00 03 00 ffffffff 00000000 c3a9",
    ],
    [encode(rpc(), GOODBYE, LIMIT), "0000000c 04 00 00 00 00000000 00000000"],
    [encode(rpc(), LAST_GOODBYE, LIMIT), "0000000c 04 00 01 00 00000000 00000000"],
  ];
  for (const [bytes, digits] of cases) assert.equal(bytes.toString("hex"), digits.replaceAll(" ", ""));
});

const frame = (digits: string): Buffer => Buffer.from(digits.replaceAll(" ", ""), "hex");

test("what is not of the format is a fault as soon as that can be known", () => {
  const tooLarge = (LIMIT + 12 + 1).toString(16).padStart(8, "0");
  const muchTooLarge = (LIMIT + 38 + 1).toString(16).padStart(8, "0");
  const cases: [string, string, string, number][] = [
    ["length 0", "00000000", "frame-empty", 4],
    ["no room for a header", "0000000b", "protocol-error", 4],
    ["a length over all limits", muchTooLarge, "frame-too-large", 4],
    ["a payload over the limit", `${tooLarge} 01 00 00 00 00000001 00000000`, "frame-too-large", 16],
    ["an unknown kind", "0000000c 05 00 00 00 00000001 00000000", "protocol-error", 16],
    ["kind 0", "0000000c 00 00 00 00 00000001 00000000", "protocol-error", 16],
    ["the other side's kind", "0000000c 02 00 00 00 00000001 00000000", "protocol-error", 16],
    ["a goodbye", "0000000c 04 00 00 00 00000000 00000000", "protocol-error", 16],
    ["an unknown flag", "0000000c 01 02 00 00 00000001 00000000", "protocol-error", 16],
    ["an unknown priority", "0000000c 01 00 03 00 00000001 00000000", "protocol-error", 16],
    ["a reserved byte", "0000000c 01 00 00 01 00000001 00000000", "protocol-error", 16],
    ["traced, and no room for it", "00000025 01 01 00 00 00000001 00000000", "protocol-error", 16],
    ["a cancel with a payload", "0000000d 03 00 00 00 00000001 00000000", "protocol-error", 16],
    ["a cancel with a deadline", "0000000c 03 00 00 00 00000001 00000001", "protocol-error", 16],
    ["a cancel that is traced", "00000026 03 01 00 00 00000001 00000000", "protocol-error", 16],
  ];
  for (const [what, digits, fault, known] of cases) {
    const fed = feed(rpc(), byteByByte(Buffer.concat([frame(digits), Buffer.alloc(60)])), LIMIT);
    assert.equal(fed.fault, fault, what);
    assert.equal(fed.givenAtFault, known, what);
    assert.equal(fed.messages.length, 0, what);
  }
  for (const [what, digits] of [
    ["a request", "0000000c 01 00 00 00 00000001 00000000"],
    ["a cancel", "0000000c 03 00 00 00 00000001 00000000"],
    ["an unknown status", "0000000c 02 00 04 00 00000001 00000000"],
    ["a reply with a deadline", "0000000c 02 00 00 00 00000001 00000001"],
    ["a reply that is traced", "00000026 02 01 00 00 00000001 00000000"],
    ["a goodbye with an id", "0000000c 04 00 00 00 00000001 00000000"],
    ["a goodbye of another grade", "0000000c 04 00 02 00 00000000 00000000"],
    ["a goodbye with a deadline", "0000000c 04 00 01 00 00000000 00000001"],
  ] as const) {
    assert.equal(
      feed(rpcClient(), [Buffer.concat([frame(digits), Buffer.alloc(60)])], LIMIT).fault,
      "protocol-error",
      what,
    );
  }
});

test("a payload of the limit passes with a trace context and without", () => {
  for (const trace of [undefined, TRACEPARENT]) {
    const bytes = encode(rpcClient(), request({ payload: "x".repeat(LIMIT), traceparent: trace }), LIMIT);
    const fed = feed(rpc(), [bytes], LIMIT);
    assert.equal((fed.messages[0] as RpcRequest).payload.length, LIMIT);
    assert.equal((fed.messages[0] as RpcRequest).traceparent, trace);
  }
});

test("what cannot be sent is refused, naming it", () => {
  const refused = (code: string, word: string) => (error: unknown) =>
    error instanceof HeadraceError && error.code === code && error.message.includes(word);
  const send = (over: object) => () => encode(rpcClient(), { ...request(), ...over }, LIMIT);
  for (const bad of [-1, 2 ** 32, 1.5, Number.NaN]) assert.throws(send({ id: bad }), refused("frame-invalid", "an id"));
  for (const bad of [-1, Number.NaN]) assert.throws(send({ deadlineMs: bad }), refused("frame-invalid", "a deadline"));
  assert.throws(send({ priority: "urgent" }), refused("frame-invalid", "a priority of urgent"));
  assert.throws(send({ payload: "x".repeat(LIMIT + 1) }), refused("frame-too-large", String(LIMIT + 1)));
  assert.throws(send({ payload: 5 }), refused("frame-invalid", "number"));
  assert.throws(send({ kind: "bye" }), refused("frame-invalid", "a kind of bye"));
  const reply = { kind: "reply", id: 1, status: "fine" as "ok", payload: "" } as const;
  assert.throws(() => encode(rpc(), reply, LIMIT), refused("frame-invalid", "a status of fine"));
});

test("a deadline is rounded down, but never to none", () => {
  const sent = (deadlineMs: number) =>
    (feed(rpc(), [encode(rpcClient(), request({ deadlineMs }), LIMIT)], LIMIT).messages[0] as RpcRequest).deadlineMs;
  assert.equal(sent(0), 0);
  assert.equal(sent(Number.POSITIVE_INFINITY), 0);
  assert.equal(sent(0.2), 1);
  assert.equal(sent(499.9), 499);
  assert.equal(sent(1e12), 2 ** 32 - 1);
});
