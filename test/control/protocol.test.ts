import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CONTROL_PROTOCOL, formatLine, parseReply, parseRequest } from "#src/control/protocol.js";

test("requests survive the journey, and carry the protocol first", () => {
  for (const request of [
    { type: "status" },
    { type: "stop", wait: false, fast: true },
    { type: "stop", wait: true, fast: false },
  ] as const) {
    const line = formatLine(request);
    assert.ok(line.startsWith(`{"protocol":${CONTROL_PROTOCOL},`) && line.endsWith("\n"));
    assert.deepEqual(parseRequest(line), request);
  }
});

test("what is left out of a stop is false", () => {
  assert.deepEqual(parseRequest('{"protocol":1,"type":"stop"}'), { type: "stop", wait: false, fast: false });
});

for (const [line, code] of [
  ["", "malformed"],
  ["status", "malformed"],
  ["[]", "malformed"],
  ["null", "malformed"],
  ["{}", "protocol"],
  ['{"protocol":2,"type":"status"}', "protocol"],
  ['{"protocol":"1","type":"status"}', "protocol"],
  ['{"protocol":1}', "unknown"],
  ['{"protocol":1,"type":"reboot"}', "unknown"],
  ['{"protocol":1,"type":"error","code":"busy"}', "unknown"],
  ['{"protocol":1,"type":"stop","wait":1}', "malformed"],
  ['{"protocol":1,"type":"stop","fast":"yes"}', "malformed"],
] as const) {
  test(`${line || "an empty line"} is refused as ${code}`, () => {
    const answer = parseRequest(line);
    assert.equal(answer.type, "error");
    assert.equal(answer.type === "error" && answer.code, code);
  });
}

test("no line at all makes the reader throw", () => {
  const anything = fc.oneof(
    fc.string(),
    fc.json(),
    fc.json().map((json) => `{"protocol":1,"type":${json}}`),
  );
  fc.assert(
    fc.property(anything, (line) => {
      assert.match(parseRequest(line).type, /^(status|stop|error)$/);
      assert.equal(typeof parseReply(line), "object");
    }),
  );
});
