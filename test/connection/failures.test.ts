/** Handlers that fail, peers that break the protocol, and what the service hears of the end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CloseReason } from "#src/base/reasons.js";
import type { Codec } from "#src/codec/codec.js";
import { frame } from "#src/codec/frame.js";
import { line } from "#src/codec/line.js";
import { raw } from "#src/codec/raw.js";
import { testConnection } from "#src/connection/harness.js";
import { defineService } from "#src/service/define.js";

test("a handler that throws or rejects ends the connection, once, with a reason", async () => {
  for (const fail of [
    () => {
      throw new Error("no");
    },
    () => Promise.reject(new Error("no")),
  ]) {
    const reasons: CloseReason[] = [];
    const service = defineService({
      codec: line(),
      onMessage: fail,
      onClose: (_connection, reason) => void reasons.push(reason),
    });
    const harness = testConnection(service);
    harness.push("a\nb\n");
    await harness.settle();
    assert.equal(harness.closed, "handler-error");
    assert.deepEqual(reasons, ["handler-error"]);
  }
});

test("onError: a reply, nothing, close or reset; what it throws itself ends the connection", async () => {
  const service = defineService({
    codec: line(),
    onMessage(text): string {
      throw new Error(text);
    },
    onError(error) {
      const { message } = error as Error;
      if (message === "close" || message === "reset") return message;
      if (message === "worse") throw new Error("worse");
      return message === "quiet" ? undefined : { reply: `sorry: ${message}` };
    },
  });
  const harness = testConnection(service);
  harness.push("a\nquiet\nb\n");
  assert.equal(harness.sent().toString(), "sorry: a\nsorry: b\n");
  assert.equal(harness.closed, undefined);
  for (const last of ["close", "reset", "worse"]) {
    const ending = testConnection(service);
    ending.push(`${last}\na\n`);
    assert.equal(ending.closed, "handler-error");
    assert.equal(ending.sent().toString(), "");
  }
});

test("a reply that cannot be encoded is the handler's failure", () => {
  const service = defineService({
    codec: line(),
    onMessage: (text) => (text === "bad" ? "two\nlines" : text),
    onError: () => ({ reply: "bad reply" }),
  });
  const harness = testConnection(service);
  harness.push("bad\ngood\n");
  assert.equal(harness.sent().toString(), "bad reply\ngood\n");
  assert.throws(() => harness.connection.send("a\nb"), { code: "frame-invalid" });
  assert.equal(harness.connection.bufferedBytes, 0);
});

test("failures in state, onOpen, onWritable, onDraining end the connection; one in onClose changes nothing", async () => {
  const fail = (): never => {
    throw new Error("no");
  };
  const base = { codec: line(), onMessage: (text: string) => text };
  for (const extra of [{ state: fail }, { onOpen: fail }]) {
    assert.equal(testConnection(defineService({ ...base, ...extra })).closed, "handler-error");
  }
  const writable = testConnection(defineService({ ...base, onWritable: fail }), {
    limits: { highWater: 10, lowWater: 5 },
  });
  writable.stallWrites();
  writable.connection.send("x".repeat(100));
  writable.resumeWrites();
  assert.equal(writable.closed, "handler-error");
  const draining = testConnection(defineService({ ...base, onDraining: fail }));
  draining.drain();
  assert.equal(draining.closed, "handler-error");
  const closing = testConnection(defineService({ ...base, onClose: fail }));
  closing.end();
  assert.equal(closing.closed, "peer-closed");
});

test("faults of the peer have their own reasons, and what came before is answered", () => {
  const cases: [string | Buffer, CloseReason][] = [
    [Buffer.of(0, 0, 0, 1, 65, 0, 0, 0, 0), "frame-empty"],
    [Buffer.of(0, 0, 0, 1, 65, 0x7f, 0xff, 0xff, 0xff), "frame-too-large"],
  ];
  for (const [bytes, reason] of cases) {
    const harness = testConnection(defineService({ codec: frame(), onMessage: (payload) => payload }));
    harness.push(bytes);
    assert.equal(harness.closed, reason);
    assert.deepEqual(harness.sent(), Buffer.of(0, 0, 0, 1, 65));
  }
  const text = testConnection(defineService({ codec: line(), onMessage: (value) => value }));
  text.push(Buffer.from([97, 10, 0xff, 10, 98, 10]));
  assert.equal(text.closed, "protocol-error");
  assert.equal(text.sent().toString(), "a\n");
  const long = testConnection(defineService({ codec: line(), onMessage: (value) => value }), { limits: { frame: 5 } });
  long.push("12345\n123456");
  assert.equal(long.closed, "frame-too-large");
  assert.equal(long.sent().toString(), "12345\n");
});

test("the signal is aborted with the reason, whether it was read before or after the end", () => {
  const service = defineService({ codec: line(), onMessage: () => {} });
  const before = testConnection(service);
  const { signal } = before.connection;
  assert.equal(signal.aborted, false);
  before.peerReset();
  assert.deepEqual([signal.aborted, signal.reason.fields.given], [true, "peer-reset"]);
  const after = testConnection(service);
  after.peerReset();
  const late = after.connection.signal;
  assert.deepEqual([late.aborted, late.reason.fields.given], [true, "peer-reset"]);
});

test("close and reset by the service: with its reason, once, also from onClose", () => {
  const reasons: CloseReason[] = [];
  const service = defineService({
    codec: line(),
    onMessage(text, { connection }) {
      if (text === "bye") connection.close();
      if (text === "kill") connection.reset("killed");
      return "last word";
    },
    onClose(connection, reason) {
      reasons.push(reason);
      connection.close("io-error");
      connection.reset();
      connection.pauseReads();
      connection.resumeReads();
      assert.equal(connection.send("late"), "closed");
      assert.equal(connection.closed, true);
      assert.equal(connection.bufferedBytes, 0);
    },
  });
  for (const word of ["bye", "kill"]) {
    const harness = testConnection(service);
    harness.push(`${word}\nmore\n`);
    harness.push("more\n");
    harness.end();
    harness.drain();
    harness.tick(1_000_000);
    assert.equal(harness.sent().toString(), "");
  }
  assert.deepEqual(reasons, ["server-close", "killed"]);
});

test("replies of handlers that end after the connection go nowhere and disturb nothing", async () => {
  const resolvers: (() => void)[] = [];
  const errors: unknown[] = [];
  const service = defineService({
    codec: line(),
    concurrency: "ordered",
    onMessage: (text): Promise<string> =>
      new Promise((resolve, reject) =>
        resolvers.push(() => (text === "bad" ? reject(new Error("late")) : resolve(text))),
      ),
    onError: (error) => void errors.push(error),
  });
  const harness = testConnection(service);
  harness.push("a\nbad\nb\n");
  harness.peerReset();
  for (const resolve of resolvers) resolve();
  await harness.settle();
  assert.deepEqual(errors, []);
  assert.equal(harness.sent().length, 0);
  assert.equal(harness.closed, "peer-reset");
});

test("a fault behind requests in flight: the connection ends and their replies are abandoned", async () => {
  let release: (() => void) | undefined;
  const service = defineService({
    codec: line(),
    concurrency: "ordered",
    onMessage: (text): Promise<string> =>
      new Promise((resolve) => {
        release = () => resolve(text);
      }),
  });
  const harness = testConnection(service);
  harness.push(Buffer.from([97, 10, 0xff, 10]));
  assert.equal(harness.closed, "protocol-error");
  release?.();
  await harness.settle();
  assert.equal(harness.sent().length, 0);
});

test("a decoder that throws costs its own connection, and what it claims is checked", () => {
  const decoders: Partial<Codec<Buffer, Uint8Array>>[] = [
    {
      decode() {
        throw new Error("bust");
      },
    },
    { decode: (_bytes, from, to) => to - from + 1 },
  ];
  for (const wrong of decoders) {
    const codec: Codec<Buffer, Uint8Array> = Object.assign(raw(), wrong);
    const harness = testConnection(defineService({ codec, onMessage: (bytes) => bytes }));
    harness.push("abc");
    assert.equal(harness.closed, "handler-error");
    harness.push("more");
    assert.equal(harness.sent().length, 0);
  }
});

test("an encoder that writes more than it announced sends nothing", () => {
  const codec: Codec<Buffer, Uint8Array> = Object.assign(raw(), { sizeOf: () => 1 });
  const harness = testConnection(defineService({ codec, onMessage: (bytes) => bytes }));
  harness.push("abc");
  assert.equal(harness.closed, "handler-error");
  assert.equal(harness.sent().length, 0);
});

test("an async handler where none is awaited: its rejection ends the connection like a throw", async () => {
  for (const name of ["onOpen", "onWritable"] as const) {
    const handlers: { onOpen?(): void; onWritable?(): void } = { [name]: () => Promise.reject(new Error("no")) };
    const service = defineService({
      codec: line(),
      limits: { highWater: 64, lowWater: 32 },
      ...handlers,
      onMessage: () => "x".repeat(100),
    });
    const harness = testConnection(service);
    harness.stallWrites();
    harness.push("a\n");
    harness.resumeWrites();
    await harness.settle();
    assert.equal(harness.closed, "handler-error", name);
  }
});

test("a state that could not be made is never shown to onClose", () => {
  const seen: unknown[] = [];
  const service = defineService({
    codec: line(),
    state(): { name: string } {
      throw new Error("no state");
    },
    onMessage: () => {},
    onClose: ({ state }) => void seen.push(state),
  });
  assert.equal(testConnection(service).closed, "handler-error");
  assert.deepEqual(seen, []);
});
