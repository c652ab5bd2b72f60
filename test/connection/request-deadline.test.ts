import assert from "node:assert/strict";
import { test } from "node:test";
import { DeadlineExceeded, HeadraceError } from "#src/base/errors.js";
import { DEFAULT_TIMEOUTS } from "#src/base/settings.js";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import type { Context } from "#src/service/connection.js";
import { defineService, type ErrorReply } from "#src/service/define.js";
import { openPeer } from "../support/peer.js";
import { openServing } from "../support/serving.js";
import { until } from "../support/until.js";

/** A service that answers when the test says so; "sync" at once. */
function slow(concurrency: "serial" | "ordered" | "unordered", onError?: (error: unknown) => ErrorReply<string>) {
  const answers = new Map<string, (reply: string) => void>();
  const contexts: Context<undefined, string, undefined>[] = [];
  const service = defineService({
    codec: line(),
    concurrency,
    timeouts: { request: "1s", idle: "off", firstByte: "off" },
    onMessage(text, context): string | Promise<string> {
      contexts.push(context);
      if (text === "sync") return "sync";
      return new Promise((resolve) => answers.set(text, resolve));
    },
    ...(onError ? { onError } : {}),
  });
  const harness = testConnection(service);
  const answer = async (text: string): Promise<void> => {
    answers.get(text)?.(text);
    await harness.settle();
  };
  return { harness, answer, contexts, sent: () => harness.sent().toString() };
}

test("a request that is not answered in time closes the connection, at most a tick late", () => {
  const { harness } = slow("serial");
  harness.push("a\n");
  harness.tick(990);
  assert.equal(harness.closed, undefined);
  harness.tick(110);
  assert.equal(harness.closed, "request-timeout");
});

test("one that is answered in time does not, nor one without a promise", async () => {
  const { harness, answer, sent } = slow("serial");
  for (let round = 0; round < 5; round++) {
    harness.push("sync\na\n");
    harness.tick(900);
    await answer("a");
    assert.equal(sent(), "sync\na\n");
  }
  harness.tick(60_000);
  assert.equal(harness.closed, undefined);
});

test("onError answers it: the connection goes on, and what the handler says later is nobody's reply", async () => {
  const { harness, answer, sent } = slow("serial", (error) => {
    assert.ok(error instanceof DeadlineExceeded && error instanceof HeadraceError);
    assert.equal(error.message, "the request was not answered within 1000 ms (timeouts.request)");
    return { reply: "late" };
  });
  harness.push("a\n");
  harness.push("sync\n");
  assert.equal(sent(), "", "serial: the next one waits");
  harness.tick(1_100);
  assert.equal(sent(), "late\nsync\n");
  await answer("a");
  assert.equal(sent(), "");
  harness.push("sync\n");
  assert.equal(sent(), "sync\n");
});

for (const answered of [undefined, "close", "reset"] as const) {
  test(`onError that answers ${answered}: closed, and the reason says why`, () => {
    const { harness } = slow("serial", () => answered);
    harness.push("a\n");
    harness.tick(1_100);
    assert.equal(harness.closed, "request-timeout");
  });
}

test("side by side each has its own deadline, and ordered replies keep their order", async () => {
  for (const order of ["ordered", "unordered"] as const) {
    const { harness, answer, sent } = slow(order, () => ({ reply: "late" }));
    harness.push("a\n");
    harness.tick(500);
    harness.push("b\nc\n");
    await answer("c");
    assert.equal(sent(), order === "ordered" ? "" : "c\n");
    harness.tick(600);
    assert.equal(sent(), "late\n", "a");
    await answer("b");
    assert.equal(sent(), order === "ordered" ? "b\nc\n" : "b\n");
    harness.tick(10_000);
    assert.equal(harness.closed, undefined);
  }
});

test("its signal is aborted at its deadline, with the error; another request's is not", () => {
  const { harness, contexts } = slow("unordered", () => ({ reply: "late" }));
  harness.push("a\n");
  const [first] = contexts.map(({ signal }) => signal);
  harness.tick(500);
  harness.push("b\n");
  const second = contexts[1]?.signal;
  harness.tick(600);
  assert.ok(first?.aborted && first.reason instanceof DeadlineExceeded);
  assert.equal(second?.aborted, false);
  harness.peerReset();
  assert.ok(second?.aborted);
  assert.equal((second?.reason as HeadraceError | undefined)?.code, "connection-closed");
});

test("a signal that is read when the request has been answered is the connection's", () => {
  const { harness, contexts } = slow("serial");
  for (let each = 0; each < 3; each++) harness.push("sync\n");
  const signals = contexts.map(({ signal }) => signal);
  assert.ok(signals.every(({ aborted }) => !aborted));
});

test("a reload to a shorter deadline holds for the requests after it, whatever is in front of them", async (t) => {
  const service = defineService({
    codec: line(),
    concurrency: "unordered",
    onMessage: (): Promise<string> => new Promise(() => {}),
    onError: () => ({ reply: "late" }),
  });
  const serving = await openServing(t, service, { timeouts: { request: 600_000, idle: "off" } });
  const peer = await openPeer(t, serving.port);
  peer.write("long\n");
  await until("it is in flight", () => serving.figure("inFlight") === 1);
  const [endpoint] = serving.server.endpoints;
  endpoint?.configure({
    limits: endpoint.limits,
    timeouts: { ...DEFAULT_TIMEOUTS, request: 100, idle: "off" },
    drainMs: 1_000,
    coalesce: true,
  });
  peer.write("short\n");
  await peer.receives("late\n".length);
  assert.equal(serving.figure("inFlight"), 1, "the long one has its time");
});
