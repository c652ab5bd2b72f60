/** Which flags of V8's are taken: asked of the node that runs the test. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { planChange } from "#src/config/change.js";
import { load } from "./folder.js";

const refusal = (v8: string): RegExp => new RegExp(`v8\\.${v8}`);

test("sizes are rounded up to whole MiB", (t) => {
  const { v8 } = load(t, { yaml: "v8: { semiSpace: 33000000, oldSpace: 1GiB }\n" });
  assert.deepEqual(v8, { semiSpace: 32 * 1024 ** 2, oldSpace: 1024 ** 3 });
  assert.throws(() => load(t, { yaml: "v8: { semiSpace: 64KiB }\n" }), {
    message: refusal('semiSpace: "64KiB" is out of range'),
  });
});

test("flags of V8's are taken, with - or _, negated, with values, and in a variable", (t) => {
  const flags = ["--max_lazy", "--no-opt", "--nolazy", "--stack-size=900"];
  assert.deepEqual(load(t, { yaml: `v8: { flags: ${JSON.stringify(flags)} }\n` }).v8, { flags });
  assert.deepEqual(load(t, { env: { HEADRACE_V8_FLAGS: "--no-opt --max-lazy" } }).v8, {
    flags: ["--no-opt", "--max-lazy"],
  });
  assert.deepEqual(load(t, { yaml: "v8: { flags: [] }\n" }).v8, { flags: [] });
});

for (const [flag, why] of [
  ["--inspect", /"--inspect" is not a flag of V8/],
  ["--inspect=0.0.0.0:9229", /is not a flag of V8/],
  ["--require=/tmp/x.js", /is not a flag of V8/],
  ["--eval=1", /is not a flag of V8/],
  ["--help", /"--help" is not a flag of V8/],
  ["--import", /is not a flag of V8/],
  ["-e", /"-e" is not a flag/],
  ["--", /"--" is not a flag/],
  ["--no-opt --inspect", /is not a flag/],
  ["--trace-gcc", /did you mean --trace-gc\?/],
  ["--stack-size=x", /illegal value for flag --stack-size=x of type int/],
  ["--max-old-space-size=100", /has an option of its own: v8\.oldSpace/],
  ["--max_semi_space_size=100", /has an option of its own: v8\.semiSpace/],
] as const) {
  test(`${flag} is refused`, (t) => {
    const yaml = `v8: { flags: [${JSON.stringify(flag)}] }\n`;
    assert.throws(() => load(t, { yaml }), { code: "config-invalid", message: why });
  });
}

test("what is no list of texts is refused", (t) => {
  assert.throws(() => load(t, { yaml: "v8: { flags: 7 }\n" }), { message: /v8\.flags: 7 is not a list/ });
  assert.throws(() => load(t, { yaml: "v8: { flags: [7] }\n" }), { message: /v8\.flags: 7 is not a flag/ });
});

test("new workers take what changed", (t) => {
  const before = load(t, { yaml: "v8: { flags: [--no-opt] }\n" });
  const after = load(t, { yaml: "v8: { flags: [--no-opt, --max-lazy], oldSpace: 1GiB }\n" });
  assert.deepEqual(planChange(before, after).workers, ["v8.oldSpace", "v8.flags"]);
  assert.deepEqual(planChange(before, before).workers, []);
});
