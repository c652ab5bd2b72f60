import assert from "node:assert/strict";
import { test } from "node:test";
import { defineClient } from "#src/client/define.js";
import { line } from "#src/codec/line.js";

const good = { name: "users", codec: line(), targets: ["127.0.0.1:7000"] };

for (const [what, given, message] of [
  ["no object", undefined, /not an object/],
  ["an unknown property", { ...good, target: "x" }, /target: unknown; did you mean targets\?/],
  ["no name", { ...good, name: "" }, /name: not a text/],
  ["no codec", { ...good, codec: undefined }, /codec: missing or not a codec.*rpc: true/],
  ["two protocols", { ...good, rpc: true }, /codec: rpc has its own/],
  ["borrowed messages", { ...good, codec: line({ as: "borrowed" }) }, /codec: its messages are borrowed/],
  ["no targets", { ...good, targets: [] }, /targets: not a list of targets/],
  ["a target without a port", { ...good, targets: ["db"] }, /targets: "db" is not a host and a port/],
  ["a port out of range", { ...good, targets: ["db:70000"] }, /targets: "db:70000"/],
  ["port 0", { ...good, targets: ["db:0"] }, /targets: "db:0"/],
  ["no IPv6 address", { ...good, targets: ["[db]:5"] }, /targets: "\[db\]:5"/],
  ["a wrong duration", { ...good, timeouts: { connect: "3" } }, /timeouts\.connect: "3" has no unit/],
  ["no time at all", { ...good, timeouts: { call: "0s" } }, /timeouts\.call: .*out of range/],
  ["an unknown timeout", { ...good, timeouts: { idel: "3s" } }, /timeouts\.idel: unknown; did you mean idle\?/],
  ["a limit of 0", { ...good, limits: { waiting: 0 } }, /limits\.waiting: 0 is out of range/],
  ["retries past all calls", { ...good, retries: "200%" }, /retries: "200%" is out of range/],
  ["another way to close", { ...good, close: "abort" }, /close: unknown; allowed: fin, reset/],
  ["a local name", { ...good, localAddress: "localhost" }, /localAddress: "localhost" is no IP address/],
  ["a resolver that is none", { ...good, resolve: "dns" }, /resolve: not a function/],
  ["half a certificate", { ...good, tls: { key: "x" } }, /tls: one of certificate and key is missing/],
  ["an unknown option of TLS", { ...good, tls: { cert: "x" } }, /tls\.cert: unknown/],
  ["no verification it knows", { ...good, tls: { verify: "maybe" } }, /tls\.verify: unknown/],
] as const) {
  test(`refused, by name: ${what}`, () => {
    assert.throws(
      () => defineClient(given as never),
      (error: { code: string; message: string }) => {
        assert.equal(error.code, "client-invalid");
        assert.match(error.message, message);
        assert.match(error.message, /allowed: /);
        return true;
      },
    );
  });
}

test("a definition opens nothing: figures are there before the first call", async () => {
  const client = defineClient({ ...good, targets: ["127.0.0.1:7000", "db.internal:7000", "[::1]:7000"] });
  const { targets, waiting, pending, counts } = client.stats();
  assert.deepEqual(
    targets.map(({ target, state, connections }) => [target, state, connections]),
    [
      ["127.0.0.1:7000", "up", 0],
      ["db.internal:7000", "up", 0],
      ["[::1]:7000", "up", 0],
    ],
  );
  assert.deepEqual([waiting, pending, counts.calls, counts.lookups], [0, 0, 0, 0]);
  await client.close();
});
