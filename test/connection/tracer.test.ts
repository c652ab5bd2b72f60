/** Which requests are traced, and what their spans say of how they ended. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { context as active, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { pino } from "pino";
import { ServerBusy } from "#src/base/errors.js";
import { line } from "#src/codec/line.js";
import type { ServedConnection } from "#src/connection/connection.js";
import { testConnection } from "#src/connection/harness.js";
import { NO_SPAN } from "#src/connection/no-span.js";
import { LISTENER_DURATIONS } from "#src/os/scoreboard.js";
import { type Concurrency, defineService, type ErrorReply } from "#src/service/define.js";
import { CALLER, callerOf, Spans } from "../support/spans.js";

interface Options {
  readonly concurrency?: Concurrency;
  readonly spans?: Spans;
  readonly onError?: (error: unknown) => ErrorReply<string>;
}

/** "fail", "busy": thrown; "wait …": answered when the test says so; "later …": fails then; a traceparent: the caller's. */
function open({ concurrency = "serial", spans = new Spans(), onError }: Options = {}) {
  const answers = new Map<string, () => void>();
  const seen: unknown[] = [];
  const service = defineService({
    name: "words",
    codec: line(),
    concurrency,
    timeouts: { request: "1s", idle: "off", firstByte: "off" },
    requestId: (text) => text,
    cancels: (text) => (text.startsWith("-") ? text.slice(1) : undefined),
    traceparent: (text) => (text.startsWith("00-") ? text : undefined),
    onMessage(text, context): string | Promise<string> {
      seen.push(context.span);
      if (text === "fail") throw new TypeError("no such word");
      if (text === "busy") throw new ServerBusy("memory", "too much");
      if (text.startsWith("wait")) return new Promise((resolve) => answers.set(text, () => resolve(text)));
      if (text.startsWith("later")) {
        return new Promise((_, reject) => answers.set(text, () => reject(new RangeError("too far"))));
      }
      return text;
    },
    ...(onError ? { onError } : {}),
  });
  const harness = testConnection(service, { remote: { host: "192.0.2.7", port: 7_000 } });
  spans.trace(harness.connection);
  const answer = async (text: string): Promise<void> => {
    answers.get(text)?.();
    await harness.settle();
  };
  return { harness, spans, answer, seen };
}

test("a span for a request says who asked whom, and ends with the reply", () => {
  const { harness, spans } = open();
  harness.push("hello\n");
  const [span] = spans.all;
  assert.ok(span);
  assert.equal(span.name, "test/words message");
  assert.equal(span.kind, SpanKind.SERVER);
  assert.equal(span.parentSpanContext, undefined);
  assert.equal(span.status.code, SpanStatusCode.UNSET);
  assert.deepEqual(span.attributes, {
    "network.transport": "tcp",
    "network.peer.address": "192.0.2.7",
    "network.peer.port": 7_000,
    "client.address": "192.0.2.7",
    "client.port": 7_000,
    "server.address": "",
    "server.port": 0,
    "headrace.listener": "test",
    "headrace.service": "words",
    "headrace.connection.id": harness.connection.id,
    "headrace.request.id": `${harness.connection.id}.1`,
    "headrace.outcome": "ok",
  });
});

test("what a handler throws is in the span, whether or not somebody answers it", async () => {
  const { harness, spans, answer } = open({ onError: () => ({ reply: "sorry" }), concurrency: "unordered" });
  harness.push("fail\nlater\n");
  await answer("later");
  assert.equal(harness.sent().toString(), "sorry\nsorry\n");
  const said = spans.all.map(({ status, events, attributes }) => [
    status.code,
    status.message,
    events[0]?.attributes?.["exception.type"],
    attributes["error.type"],
    attributes["headrace.outcome"],
  ]);
  assert.deepEqual(said, [
    [SpanStatusCode.ERROR, "no such word", "TypeError", "TypeError", "error"],
    [SpanStatusCode.ERROR, "too far", "RangeError", "RangeError", "error"],
  ]);
  const other = open();
  other.harness.push("fail\n");
  assert.deepEqual(other.spans.take(), ["test/words message: error"]);
});

test("each way to end is told from the others, and each span ends once", async () => {
  const { harness, spans, answer } = open({ concurrency: "unordered", onError: () => ({ reply: "sorry" }) });
  harness.push("wait 1\nwait 2\nwait 3\nbusy\n");
  assert.deepEqual(spans.take(), ["test/words message: busy"]);
  harness.push("-wait 1\n");
  assert.deepEqual(spans.take(), ["test/words message: cancelled"]);
  await answer("wait 1");
  await answer("wait 2");
  assert.deepEqual(spans.take(), ["test/words message: ok"]);
  harness.tick(1_100);
  assert.deepEqual(spans.take(), ["test/words message: late"]);
  await answer("wait 3");
  harness.push("wait 4\n");
  harness.peerReset();
  assert.deepEqual(spans.take(), ["test/words message: closed"]);
  await answer("wait 4");
  assert.deepEqual(spans.take(), []);
});

for (const concurrency of ["serial", "ordered"] as const) {
  test(`replies that wait for their turn, ${concurrency}: every request has its span`, async () => {
    const { harness, spans, answer } = open({ concurrency });
    harness.push("wait 1\nhello\nlater 1\n");
    await answer("wait 1");
    await answer("later 1");
    assert.deepEqual(spans.take().toSorted(), [
      "test/words message: error",
      "test/words message: ok",
      "test/words message: ok",
    ]);
  });
}

test("a caller's trace goes on when it is sampled, and is not begun when it is not, whatever the share", () => {
  for (const share of [0, 1]) {
    const { harness, spans, seen } = open({ spans: new Spans({ share }) });
    harness.push(`${callerOf("00")}\n`);
    assert.equal(seen[0], NO_SPAN);
    harness.push(`${callerOf("01")}\n`);
    const [span, ...more] = spans.all;
    assert.equal(more.length, 0);
    assert.equal(span?.spanContext().traceId, CALLER.traceId);
    assert.equal(span?.parentSpanContext?.spanId, CALLER.spanId);
  }
});

test("the trace of a caller that is not trusted decides nothing, and is linked to", () => {
  const silent = open({ spans: new Spans({ share: 0, trustCallers: false }) });
  silent.harness.push(`${callerOf("01")}\n`);
  assert.deepEqual(silent.spans.all, []);
  const { harness, spans } = open({ spans: new Spans({ trustCallers: false }) });
  harness.push(`${callerOf("00")}\n`);
  const [span] = spans.all;
  assert.notEqual(span?.spanContext().traceId, CALLER.traceId);
  assert.equal(span?.parentSpanContext, undefined);
  assert.equal(span?.links[0]?.context.spanId, CALLER.spanId);
});

test("the share of requests that is traced is the one that was asked for", () => {
  const REQUESTS = 100_000;
  for (const share of [0.01, 0.3]) {
    const { harness, spans } = open({ spans: new Spans({ share }) });
    for (let sent = 0; sent < REQUESTS; sent += 1_000) harness.push("x\n".repeat(1_000));
    const mean = REQUESTS * share;
    // Six standard deviations: once in a billion runs.
    const tolerance = 6 * Math.sqrt(mean * (1 - share));
    assert.ok(Math.abs(spans.all.length - mean) < tolerance, `${spans.all.length} of ${REQUESTS} at ${share}`);
  }
});

test("an SDK that throws fails no request, and the log says so once", async () => {
  const lines: { readonly msg: string; readonly err: { readonly message: string } }[] = [];
  const log = pino({}, { write: (text: string) => lines.push(JSON.parse(text)) });
  for (const when of ["onStart", "onEnd"] as const) {
    const processor = {
      onStart() {},
      onEnd() {},
      forceFlush: () => Promise.resolve(),
      shutdown: () => Promise.resolve(),
      [when]() {
        throw new Error(`broken ${when}`);
      },
    };
    const answers: (() => void)[] = [];
    const service = defineService({
      codec: line(),
      concurrency: "unordered",
      onMessage(text) {
        if (text === "fail") throw new Error("no such word");
        return text === "wait" ? new Promise<string>((resolve) => answers.push(() => resolve(text))) : text;
      },
      onError: () => ({ reply: "sorry" }),
    });
    const harness = testConnection(service, { log });
    new Spans({ processor }).trace(harness.connection);
    harness.push("hello\nfail\nwait\nwait\n");
    answers[0]?.();
    await harness.settle();
    assert.equal(harness.sent().toString(), "hello\nsorry\nwait\n");
    // One is in flight, and cut.
    harness.peerReset();
    answers[1]?.();
    await harness.settle();
  }
  assert.deepEqual(
    lines.map(({ err }) => err.message),
    ["broken onStart", "broken onEnd"],
  );
});

for (const how of ["thrown", "rejected"] as const) {
  test(`an error that has no text, ${how} by a traced handler, fails its request and nothing else`, async () => {
    const spans = new Spans();
    const service = defineService({
      codec: line(),
      onMessage(): string | Promise<string> {
        const error: unknown = Object.create(null);
        if (how === "rejected") return Promise.reject(error);
        throw error;
      },
      onError: () => ({ reply: "sorry" }),
    });
    const harness = testConnection(service);
    spans.trace(harness.connection);
    harness.push("one\n");
    await harness.settle();
    assert.equal(harness.sent().toString(), "sorry\n");
    assert.deepEqual(spans.take(), ["test/line message: error"]);
    const { timing, row } = (harness.connection as unknown as ServedConnection).endpoint;
    assert.equal(timing.oldestSeconds(), 0);
    assert.equal(
      row.subarray(LISTENER_DURATIONS).reduce((sum, count) => sum + count, 0),
      1,
    );
  });
}

test("context.span takes everything, traced or not, and the span of a traced request is the active one", async (t) => {
  active.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  t.after(() => active.disable());
  const actives: unknown[] = [];
  const service = defineService({
    codec: line(),
    async onMessage(text, { span }) {
      span.setAttribute("word", text).addEvent("begun");
      await Promise.resolve();
      actives.push(trace.getActiveSpan() === span);
      return text;
    },
  });
  const harness = testConnection(service);
  harness.push("first\n");
  await harness.settle();
  const spans = new Spans();
  spans.trace(harness.connection);
  harness.push("second\n");
  await harness.settle();
  assert.equal(harness.sent().toString(), "first\nsecond\n");
  assert.deepEqual(actives, [false, true]);
  assert.deepEqual(
    spans.all.map(({ attributes, events }) => [attributes.word, events[0]?.name]),
    [["second", "begun"]],
  );
});

test("a request that is not traced is not in the trace of the one whose handler has let it come", async (t) => {
  active.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  t.after(() => active.disable());
  const seen: unknown[] = [];
  const service = defineService({
    codec: line(),
    concurrency: "unordered",
    traceparent: (text) => (text.startsWith("00-") ? text : undefined),
    async onMessage(text, { connection }) {
      seen.push(trace.getActiveSpan()?.spanContext().traceId);
      if (text !== callerOf("01")) return;
      connection.pauseReads();
      await Promise.resolve();
      connection.resumeReads();
      seen.push(trace.getActiveSpan()?.spanContext().traceId);
    },
  });
  const harness = testConnection(service);
  new Spans().trace(harness.connection);
  harness.push(`${callerOf("01")}\n${callerOf("00")}\n`);
  await harness.settle();
  assert.deepEqual(seen, [CALLER.traceId, undefined, CALLER.traceId]);
});

test("a trace context that is not valid counts as none, and is not passed on", () => {
  for (const wrong of ["00-xyz", `00-${"0".repeat(32)}-${CALLER.spanId}-00`, `${callerOf("00")}-more`]) {
    const { harness, spans } = open();
    harness.push(`${wrong}\n`);
    assert.equal(spans.all.length, 1, wrong);
    assert.equal(spans.all[0]?.parentSpanContext, undefined);
    const tracer = spans.tracerFor((harness.connection as unknown as ServedConnection).endpoint);
    assert.match(tracer.passedOn(wrong), /^00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assert.equal(tracer.passedOn(callerOf("00")), callerOf("00"));
  }
});

test("a handler that closes its own connection and answers later has a span that is closed", async () => {
  const service = defineService({
    codec: line(),
    async onMessage(text, { connection }) {
      connection.close();
      await Promise.resolve();
      return text;
    },
  });
  const harness = testConnection(service);
  const spans = new Spans();
  spans.trace(harness.connection);
  harness.push("hello\n");
  await harness.settle();
  assert.deepEqual(spans.take(), ["test/line message: closed"]);
});

test("the log of a traced request names its trace", () => {
  const lines: { readonly request: string; readonly trace?: string }[] = [];
  const service = defineService({ codec: line(), onMessage: (text, { log }) => log.info(text) });
  const log = pino({}, { write: (text: string) => lines.push(JSON.parse(text)) });
  const harness = testConnection(service, { log });
  harness.push("first\n");
  const spans = new Spans();
  spans.trace(harness.connection);
  harness.push("second\n");
  assert.deepEqual(
    lines.map(({ trace: id }) => id),
    [undefined, spans.all[0]?.spanContext().traceId],
  );
});
