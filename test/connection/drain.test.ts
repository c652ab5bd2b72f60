/** A worker that stops: goodbye, what is in flight, the end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { defineService } from "#src/service/define.js";

test("with nothing in flight: the goodbye is sent and the connection ends", () => {
  const harness = testConnection(defineService({ codec: line(), onMessage: () => {}, onDraining: () => "goodbye" }));
  harness.drain();
  assert.equal(harness.sent().toString(), "goodbye\n");
  assert.equal(harness.closed, "drain");
});

for (const concurrency of ["serial", "ordered", "unordered"] as const) {
  test(`${concurrency}: what is in flight and what has arrived is answered first`, async () => {
    const resolvers: (() => void)[] = [];
    const service = defineService({
      codec: line(),
      concurrency,
      onMessage: (text): Promise<string> => new Promise((resolve) => resolvers.push(() => resolve(text))),
    });
    const harness = testConnection(service);
    harness.push("a\nb\n");
    harness.drain();
    harness.drain();
    assert.equal(harness.closed, undefined);
    for (let i = 0; i < 2; i++) {
      resolvers[i]?.();
      await harness.settle();
    }
    assert.equal(harness.sent().toString(), "a\nb\n");
    assert.equal(harness.closed, "drain");
  });
}

test("with replies backed up: the connection ends when they have left", () => {
  const service = defineService({ codec: line(), onMessage: (text) => text });
  const harness = testConnection(service, { limits: { highWater: 10, lowWater: 5 } });
  harness.stallWrites();
  harness.push(`${"x".repeat(50)}\ny\n`);
  harness.drain();
  assert.equal(harness.closed, undefined);
  harness.resumeWrites();
  assert.equal(harness.closed, "drain");
  assert.equal(harness.sent().toString(), `${"x".repeat(50)}\ny\n`);
});

test("an unfinished frame may still be finished and is answered", () => {
  const harness = testConnection(defineService({ codec: line(), onMessage: (text) => text }));
  harness.push("unfin");
  harness.drain();
  assert.equal(harness.closed, undefined);
  harness.push("ished\n");
  assert.equal(harness.sent().toString(), "unfinished\n");
  assert.equal(harness.closed, "drain");
});

test("a connection that ended before is not drained", () => {
  let drained = 0;
  const harness = testConnection(
    defineService({ codec: line(), onMessage: () => {}, onDraining: () => void drained++ }),
  );
  harness.end();
  harness.drain();
  assert.equal(drained, 0);
  assert.equal(harness.closed, "peer-closed");
});
