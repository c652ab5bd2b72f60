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
  assert.equal(sent(), "late\n", "the handler still runs");
  await answer("a");
  assert.equal(sent(), "sync\n");
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

// ---- deadlines, ids and cancels of whatever protocol ----

/** "NAME MS": a request that wants its reply within so many ms; "NAME": one that does not say; "-NAME": a cancel. */
function worded(extra: Partial<Parameters<typeof defineService<string, string>>[0]> = {}) {
  const contexts = new Map<string, Context<undefined, string, undefined>>();
  const answers = new Map<string, (reply: string) => void>();
  const idOf = (text: string): string => text.split(" ")[0] as string;
  const service = defineService<string, string>({
    codec: line(),
    concurrency: "unordered",
    timeouts: { request: "2s", idle: "off", firstByte: "off" },
    deadline: (text) => (text.includes(" ") ? Number(text.split(" ")[1]) : undefined),
    requestId: idOf,
    cancels: (text) => (text.startsWith("-") ? text.slice(1) : undefined),
    onMessage(text, context) {
      contexts.set(idOf(text), context);
      return text === "sync" ? text : new Promise((resolve) => answers.set(idOf(text), resolve));
    },
    onError: (error, _context, text) => ({ reply: `${idOf(text)}: ${(error as Error).message}` }),
    ...extra,
  });
  const harness = testConnection(service);
  const context = (id: string) => contexts.get(id) ?? assert.fail(`${id} was not begun`);
  const answer = async (id: string): Promise<void> => {
    answers.get(id)?.(id);
    await harness.settle();
  };
  return { harness, context, answer, sent: () => harness.sent().toString() };
}

test("a message's deadline shortens timeouts.request and never extends it, whatever their order", () => {
  const { harness, context, sent } = worded();
  harness.push("a 5000\nb 700\nc 300\nd\n");
  assert.deepEqual(
    ["a", "b", "c", "d"].map((id) => context(id).remainingMs()),
    [2_000, 700, 300, 2_000],
  );
  harness.tick(310);
  assert.equal(sent(), "c: the request was not answered by its deadline\n");
  harness.tick(400);
  assert.equal(sent(), "b: the request was not answered by its deadline\n");
  harness.tick(1_300);
  assert.equal(sent().match(/^[ad]: /gm)?.length, 2);
  assert.equal(context("a").remainingMs(), 0);
});

test("one that has passed when the message comes is answered at once; nothing that is no number counts", () => {
  const { harness, context, sent } = worded();
  harness.push("a 0\nb -5\n");
  assert.match(sent(), /^a: the deadline of the request had passed.*\nb: the deadline of the request had passed/);
  assert.throws(() => context("a"), /not begun/);
  harness.push("c soon\n");
  assert.equal(context("c").remainingMs(), 2_000);
});

test("without onError a request that comes too late closes the connection as any late one does", () => {
  const { harness } = worded({ onError: undefined as never });
  harness.push("a 0\n");
  assert.equal(harness.closed, "request-timeout");
});

test("a cancel ends the request it names; an id that waits twice is a protocol error", async () => {
  const { harness, context, answer, sent } = worded();
  harness.push("a\nb\n");
  const { signal } = context("a");
  harness.push("-a\n-c\n");
  assert.ok(signal.aborted);
  await answer("a");
  await answer("b");
  assert.equal(sent(), "b\n");
  harness.push("a\na\n");
  assert.equal(harness.closed, "protocol-error");
});

test("a borrowed message is copied for onError when its request waits", async () => {
  const service = defineService({
    codec: line({ as: "borrowed" }),
    onMessage: async (bytes) => {
      if (bytes.length > 0) throw new Error("no");
      return "";
    },
    onError: (_error, _context, bytes) => ({ reply: `failed: ${bytes}` }),
  });
  const harness = testConnection(service);
  for (const text of ["short", "longer than what is copied in a loop"]) {
    harness.push(`${text}\n`);
    await harness.settle();
    assert.equal(harness.sent().toString(), `failed: ${text}\n`);
  }
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

test("serial stays serial: the next handler waits for one that is late, and runs when that has ended", async () => {
  const running: string[] = [];
  const ends: (() => void)[] = [];
  let most = 0;
  const service = defineService<string, string>({
    codec: line(),
    timeouts: { idle: "off", firstByte: "off" },
    deadline: (text) => (text === "hurry" ? 50 : undefined),
    async onMessage(text) {
      running.push(text);
      most = Math.max(most, running.length);
      if (text === "hurry") await new Promise<void>((resolve) => ends.push(resolve));
      running.splice(running.indexOf(text), 1);
      return text;
    },
    onError: () => ({ reply: "late" }),
  });
  const harness = testConnection(service);
  harness.push("hurry\nhurry\nlast\n");
  harness.tick(150);
  assert.equal(harness.sent().toString(), "late\n");
  assert.equal(most, 1);
  for (let each = ends.shift(); each; each = ends.shift()) {
    each();
    await harness.settle();
    harness.tick(150);
  }
  await harness.settle();
  assert.match(harness.sent().toString(), /late\nlast\n$/);
  assert.equal(most, 1);
});

test("a hook that cannot read a peer's message costs that peer its connection, and nobody else anything", () => {
  for (const hook of ["deadline", "requestId", "cancels"] as const) {
    const { harness } = worded({
      [hook]: () => {
        throw new Error("cannot read it");
      },
    });
    harness.push("a\n");
    assert.equal(harness.closed, "handler-error", hook);
  }
});
