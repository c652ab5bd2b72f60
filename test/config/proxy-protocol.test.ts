import assert from "node:assert/strict";
import { test } from "node:test";
import { planChange } from "#src/config/change.js";
import { configReference } from "#src/config/reference.js";
import { load, refusal } from "./folder.js";

const listener = (rest: string): string =>
  `listeners:\n  - address: "127.0.0.1:9000"\n    service: echo-line\n    ${rest}\n`;
const WITH = listener("proxyProtocol: { trust: [10.0.0.0/8, ::1] }");
const ALLOWED = 'up to 10000 addresses or CIDR blocks ("10.0.0.0/8", "2001:db8::/32")';

test("a listener's option: whom to trust, and that a header is required unless said otherwise", (t) => {
  assert.deepEqual(load(t, { yaml: WITH }).listeners[0]?.proxyProtocol, {
    trust: ["10.0.0.0/8", "::1"],
    required: true,
  });
  const optional = listener("proxyProtocol: { trust: 10.1.2.3, required: false }");
  assert.deepEqual(load(t, { yaml: optional }).listeners[0]?.proxyProtocol, { trust: ["10.1.2.3"], required: false });
  assert.equal("proxyProtocol" in (load(t, {}).listeners[0] ?? {}), false);
});

for (const [yaml, message] of [
  [
    listener("proxyProtocol: true"),
    "4: listeners[0].proxyProtocol: true is not a group of options; allowed: trust, required",
  ],
  [listener("proxyProtocol: {}"), `4: listeners[0].proxyProtocol.trust: is missing; allowed: ${ALLOWED}`],
  [listener("proxyProtocol:"), `4: listeners[0].proxyProtocol.trust: is missing; allowed: ${ALLOWED}`],
  [
    listener("proxyProtocol: { trust: [] }"),
    `4: listeners[0].proxyProtocol.trust: the list is empty; allowed: ${ALLOWED}`,
  ],
  [
    listener("proxyProtocol: { trust: [10.0.0.1/8] }"),
    `4: listeners[0].proxyProtocol.trust: "10.0.0.1/8" is not a CIDR block: its address has bits beyond the prefix; allowed: ${ALLOWED}`,
  ],
  [
    listener("proxyProtocol: { trust: [10.0.0.1], require: false }"),
    "4: listeners[0].proxyProtocol.require: unknown option; did you mean required?",
  ],
  [
    "proxyProtocol: { trust: [10.0.0.1] }\n",
    "1: proxyProtocol: unknown option; allowed: workers, listeners, limits, timeouts, socket, drain, migration, admission, tasks, shed, log, admin, control, pidFile",
  ],
  ["limits: { proxyHeader: 231 }\n", "1: limits.proxyHeader: 231 is out of range; allowed: 232 to 65551"],
  [
    "timeouts: { proxyHeader: 0 }\n",
    "1: timeouts.proxyHeader: 0 is not allowed: write off to disable it; allowed: 1ms to 576h or off",
  ],
] as const) {
  test(`refused: ${JSON.stringify(yaml)}`, (t) => {
    assert.equal(refusal(t, { yaml }).message, `headrace.yaml:${message}`);
  });
}

test("a reload tells running workers of it, whether it comes, goes or changes", (t) => {
  const without = load(t, { yaml: listener("") });
  const [strict, other] = [load(t, { yaml: WITH }), load(t, { yaml: WITH.replace("[10.0.0.0/8, ::1]", "[::1]") })];
  const both = ["listeners[].proxyProtocol.trust (echo-line)", "listeners[].proxyProtocol.required (echo-line)"];
  for (const [before, after, live] of [
    [without, strict, both],
    [strict, without, both],
    [strict, other, both.slice(0, 1)],
    [strict, strict, []],
  ] as const) {
    const change = planChange(before, after);
    assert.deepEqual([change.live, change.workers, change.restart], [live, [], []]);
  }
});

test("the reference has its options, which stand on listeners only", () => {
  const lines = configReference().split("\n");
  assert.ok(
    lines.some((line) => /^\| `listeners\[\]\.proxyProtocol\.trust` \| up to 10000 .* \| at once \| {2}\|$/.test(line)),
  );
  assert.ok(
    lines.some((line) => /^\| `listeners\[\]\.proxyProtocol\.required` \| true or false \| `true` \|/.test(line)),
  );
  assert.ok(!lines.some((line) => line.includes("`listeners[].proxyProtocol`")));
});
