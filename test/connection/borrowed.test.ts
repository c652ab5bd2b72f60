/** Borrowed frames: right until the handler returns, whatever happens meanwhile; poisoned afterwards. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Codec, NEED_MORE } from "#src/codec/codec.js";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import { raw } from "#src/codec/raw.js";
import { testConnection } from "#src/connection/harness.js";
import { BUILTIN_SERVICES } from "#src/service/builtins.js";
import { defineService } from "#src/service/define.js";
import { cutPlaces, splitAt } from "../support/splits.js";

test("a borrowed frame is overwritten once its handler has returned; an owned one is not", () => {
  for (const length of [5, 127, 128, 129, 1000]) {
    const kept: Buffer[] = [];
    const message = "x".repeat(length);
    const borrowed = testConnection(
      defineService({
        codec: line({ as: "borrowed" }),
        onMessage(bytes) {
          kept.push(bytes);
          return bytes;
        },
      }),
    );
    borrowed.push(`${message}\n`);
    assert.equal(borrowed.sent().toString(), `${message}\n`);
    assert.ok(
      kept[0]?.every((byte) => byte === 0xdb),
      `length ${length}`,
    );
    const owned = testConnection(
      defineService({
        codec: line({ as: "bytes" }),
        onMessage(bytes) {
          kept[0] = bytes;
        },
      }),
    );
    owned.push(`${message}\n`);
    assert.equal(kept[0]?.toString(), message);
  }
});

test("poisoning a frame leaves the bytes behind it alone", () => {
  const seen: string[] = [];
  const service = defineService({
    codec: frame({ as: "borrowed" }),
    onMessage(bytes) {
      seen.push(bytes.toString());
    },
  });
  const payloads = ["a".repeat(200), "b".repeat(300), "c", "d".repeat(150)];
  const bytes = Buffer.concat(
    payloads.map((text) => {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(text.length);
      return Buffer.concat([prefix, Buffer.from(text)]);
    }),
  );
  const harness = testConnection(service);
  harness.push(bytes.subarray(0, 250));
  harness.push(bytes.subarray(250));
  assert.deepEqual(seen, payloads);
});

test("ordered: a borrowed frame returned at once is answered with its bytes, also behind a slow request", async () => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line({ as: "borrowed" }),
    concurrency: "ordered",
    onMessage(bytes): Buffer | Promise<Buffer> {
      if (bytes.toString() !== "slow") return bytes;
      const copy = Buffer.from(bytes);
      return new Promise((resolve) => {
        release = () => resolve(copy);
      });
    },
  });
  const harness = testConnection(service);
  harness.push("slow\nfast\nmore\n");
  release?.();
  await harness.settle();
  assert.equal(harness.sent().toString(), "slow\nfast\nmore\n");
});

test("ordered: borrowed frames, answered at once or later in any order, come back byte for byte", async () => {
  const part = fc.record({ later: fc.boolean(), text: fc.stringMatching(/^[a-z]{0,140}$/) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(part, { maxLength: 15 }),
      cutPlaces,
      fc.array(fc.nat({ max: 20 })),
      async (parts, cuts, picks) => {
        const waiting: (() => void)[] = [];
        const service = defineService({
          codec: line({ as: "borrowed" }),
          concurrency: "ordered",
          limits: { inFlight: 4 },
          onMessage(bytes): Buffer | Promise<Buffer> {
            if (bytes[0] !== 0x21) return bytes;
            const copy = Buffer.from(bytes);
            return new Promise((resolve) => waiting.push(() => resolve(copy)));
          },
        });
        const harness = testConnection(service);
        const sent = parts.map(({ later, text }) => `${later ? "!" : "."}${text}\n`).join("");
        for (const chunk of splitAt(Buffer.from(sent), cuts)) harness.push(chunk);
        for (let turn = 0; waiting.length > 0; turn++) {
          waiting.splice((picks[turn] ?? 0) % waiting.length, 1)[0]?.();
          await harness.settle();
        }
        assert.equal(harness.sent().toString(), sent);
      },
    ),
    { numRuns: 200 },
  );
});

test("a handler that lets another connection go on keeps its own frame intact", () => {
  const service = defineService({
    codec: line({ as: "borrowed" }),
    onMessage(bytes, context) {
      if (bytes.toString() === "wait") {
        context.connection.pauseReads();
        return undefined;
      }
      if (bytes.toString() === "wake") {
        other.connection.resumeReads();
        return Buffer.from(bytes);
      }
      return undefined;
    },
  });
  const other = testConnection(service);
  const harness = testConnection(service);
  other.push("wait\nheld\n");
  harness.push("wake\n");
  assert.equal(harness.sent().toString(), "wake\n");
});

test("a codec of one's own may lend messages that are not buffers", () => {
  interface Numbered {
    readonly number: number;
  }
  const codec: Codec<Numbered, string> = {
    name: "digits",
    borrowed: true,
    message: { number: 0 },
    fault: "protocol-error",
    decode(bytes, from, to) {
      if (from === to) return NEED_MORE;
      Object.assign(codec.message, { number: bytes[from] });
      return 1;
    },
    sizeOf: () => 16,
    encodeInto: (text, target, at) => target.write(text, at),
  };
  const harness = testConnection(defineService({ codec, onMessage: (message) => String(message.number) }));
  harness.push("A");
  assert.equal(harness.sent().toString(), "65");
  assert.equal(harness.closed, undefined);
});

test("the built-in services give back what came, byte for byte, and borrow on the way", () => {
  const everyByte = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => byte !== 10));
  const lines = Buffer.concat([everyByte, Buffer.from("\n\n\r\n"), Buffer.alloc(5000, 0xff), Buffer.from("\n")]);
  for (const name of ["echo-line", "hash-line"]) {
    const service = BUILTIN_SERVICES.get(name);
    assert.ok(service);
    const harness = testConnection(service);
    harness.push(lines);
    assert.ok(harness.sent().equals(lines), name);
  }
  const echoRaw = BUILTIN_SERVICES.get("echo-raw");
  assert.ok(echoRaw);
  const harness = testConnection(echoRaw);
  harness.push(lines);
  assert.ok(harness.sent().equals(lines));
  assert.equal(raw({ as: "borrowed" }).borrowed, true);
});
