import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CONTROL_PROTOCOL, formatLine, parseReply, parseRequest } from "#src/control/protocol.js";

test("requests survive the journey, and carry the protocol first", () => {
  for (const request of [
    { type: "status" },
    { type: "stop", wait: false, fast: true },
    { type: "stop", wait: true, fast: false },
    { type: "reload", wait: true, replace: true },
    { type: "upgrade", wait: true },
    { type: "scale", wait: false, workers: 256 },
    { type: "drain", wait: true, worker: 0 },
  ] as const) {
    const line = formatLine(request);
    assert.ok(line.startsWith(`{"protocol":${CONTROL_PROTOCOL},`) && line.endsWith("\n"));
    assert.deepEqual(parseRequest(line), request);
  }
});

test("a switch that is left out is false", () => {
  for (const [line, request] of [
    ['{"protocol":1,"type":"stop"}', { type: "stop", wait: false, fast: false }],
    ['{"protocol":1,"type":"reload"}', { type: "reload", wait: false, replace: false }],
    ['{"protocol":1,"type":"scale","workers":2}', { type: "scale", wait: false, workers: 2 }],
  ] as const) {
    assert.deepEqual(parseRequest(line), request);
  }
});

for (const [line, code, says] of [
  ["", "malformed", /JSON/],
  ["status", "malformed", /JSON/],
  ["[]", "malformed", /object/],
  ["null", "malformed", /object/],
  ["{}", "protocol", /no protocol/],
  ['{"protocol":2,"type":"status"}', "protocol", /gave protocol 2/],
  ['{"protocol":"1","type":"status"}', "protocol", /gave protocol "1"/],
  ['{"protocol":1}', "unknown", /unknown request undefined; allowed: "status", "stop", "reload"/],
  ['{"protocol":1,"type":"reboot"}', "unknown", /"reboot"/],
  ['{"protocol":1,"type":"constructor"}', "unknown", /"constructor"/],
  ['{"protocol":1,"type":["reload"]}', "unknown", /\["reload"\]/],
  ['{"protocol":1,"type":"error","code":"busy"}', "unknown", /"error"/],
  ['{"protocol":1,"type":"stop","wait":1}', "malformed", /^"wait" is true or false$/],
  ['{"protocol":1,"type":"stop","fast":"yes"}', "malformed", /^"fast" is true or false$/],
  ['{"protocol":1,"type":"reload","wait":null}', "malformed", /^"wait" is true or false$/],
  ['{"protocol":1,"type":"scale"}', "malformed", /^"workers" is a whole number from 1 to 256$/],
  ['{"protocol":1,"type":"scale","workers":0}', "malformed", /^"workers" is a whole number from 1 to 256$/],
  ['{"protocol":1,"type":"scale","workers":257}', "malformed", /^"workers" is/],
  ['{"protocol":1,"type":"scale","workers":1.5}', "malformed", /^"workers" is/],
  ['{"protocol":1,"type":"scale","workers":"2"}', "malformed", /^"workers" is/],
  ['{"protocol":1,"type":"scale","workers":true}', "malformed", /^"workers" is/],
  ['{"protocol":1,"type":"drain"}', "malformed", /^"worker" is a whole number from 0 to 255$/],
  ['{"protocol":1,"type":"drain","worker":-1}', "malformed", /^"worker" is/],
  ['{"protocol":1,"type":"status","json":true}', "malformed", /^unknown field "json" in "status"; allowed: none$/],
  [
    '{"protocol":1,"type":"reload","force":true,"replce":true}',
    "malformed",
    /^unknown field "force", "replce" in "reload"; allowed: "wait", "replace"$/,
  ],
  ['{"protocol":1,"type":"upgrade","__proto__":{"wait":true}}', "malformed", /^unknown field "__proto__"/],
] as const) {
  test(`${line || "an empty line"} is refused as ${code}`, () => {
    const answer = parseRequest(line);
    assert.equal(answer.type, "error");
    if (answer.type !== "error") return;
    assert.equal(answer.code, code);
    assert.match(answer.message, says);
  });
}

test("no line at all makes the reader throw", () => {
  const anything = fc.oneof(
    fc.string(),
    fc.json(),
    fc.json().map((json) => `{"protocol":1,"type":${json}}`),
    fc.json().map((json) => `{"protocol":1,"type":"scale","workers":${json},"wait":true}`),
  );
  fc.assert(
    fc.property(anything, (line) => {
      assert.match(parseRequest(line).type, /^(status|stop|scale|error)$/);
      assert.equal(typeof parseReply(line), "object");
    }),
  );
});
