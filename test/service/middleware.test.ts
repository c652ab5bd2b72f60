import assert from "node:assert/strict";
import { test } from "node:test";
import { line } from "#src/codec/line.js";
import { testConnection } from "#src/connection/harness.js";
import { defineService } from "#src/service/define.js";

test("the first in use is the outermost; each may change the message, the reply, or answer itself", () => {
  const service = defineService({
    codec: line(),
    onMessage: (text) => `[${text}]`,
    use: [
      (text, _context, next) => (text === "blocked" ? "no" : `outer(${String(next(`${text}1`))})`),
      (text, _context, next) => `inner(${String(next(`${text}2`))})`,
    ],
  });
  const harness = testConnection(service);
  harness.push("a\nblocked\n");
  assert.equal(harness.sent().toString(), "outer(inner([a12]))\nno\n");
});

test("a plain reply stays plain on its way through middleware", () => {
  const seen: unknown[] = [];
  const service = defineService({
    codec: line(),
    onMessage: (text) => text,
    use: [
      (text, _context, next) => {
        const reply = next(text);
        seen.push(reply);
        return reply;
      },
    ],
  });
  testConnection(service).push("x\n");
  assert.deepEqual(seen, ["x"]);
});

test("what middleware throws is the request's failure", () => {
  const service = defineService({
    codec: line(),
    onMessage: (text) => text,
    onError: (error) => ({ reply: (error as Error).message }),
    use: [
      (text, _context, next) => {
        if (text === "bad") throw new Error("refused");
        return next(text);
      },
    ],
  });
  const harness = testConnection(service);
  harness.push("bad\ngood\n");
  assert.equal(harness.sent().toString(), "refused\ngood\n");
});

test("the context: connection, env, ids that are unique, a signal, all lazy", () => {
  const ids: string[] = [];
  const service = defineService({
    codec: line(),
    env: () => ({ greeting: "unused" }),
    state: (info) => ({ from: info.remote.host, count: 0 }),
    onMessage(text, context) {
      ids.push(context.id);
      assert.equal(context.id, context.id);
      assert.ok(context.id.startsWith(context.connection.id));
      context.connection.state.count += 1;
      assert.equal(context.signal.aborted, false);
      return `${context.env.greeting} ${text} ${context.connection.state.from} ${context.connection.state.count}`;
    },
  });
  const harness = testConnection(service, { env: { greeting: "hi" }, remote: { host: "203.0.113.9", port: 5 } });
  harness.push("a\nb\n");
  assert.equal(harness.sent().toString(), "hi a 203.0.113.9 1\nhi b 203.0.113.9 2\n");
  assert.equal(new Set(ids).size, 2);
});
