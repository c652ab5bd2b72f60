import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { readDocument } from "#src/config/document.js";

function plain(text: string): unknown {
  const { data, faults } = readDocument(text);
  assert.deepEqual(faults, []);
  return JSON.parse(JSON.stringify(data));
}

function faultsOf(text: string): string[] {
  return readDocument(text).faults.map(({ line, path, problem }) => `${line} ${path.join(".")} ${problem}`);
}

test("empty text and comments are an empty configuration", () => {
  for (const text of ["", "\n", "# nothing\n", "---\n", "null", "\u{feff}"]) assert.deepEqual(plain(text), {});
});

test("a group whose options are all commented out is empty", () => {
  assert.deepEqual(plain("limits:\n  # frame: 1MiB\nworkers:\n"), { limits: {}, workers: null });
});

test("any JSON reads as JSON does", () => {
  const key = fc
    .stringMatching(/^[a-z]{1,8}$/)
    .filter((name) => !["limits", "timeouts", "socket", "log"].includes(name));
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      fc.string(),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      tie("list"),
      tie("group"),
    ),
    list: fc.array(tie("any"), { maxLength: 5 }),
    group: fc.dictionary(key, tie("any"), { maxKeys: 5, noNullPrototype: true }),
  }));
  fc.assert(
    fc.property(value.group, (group) => {
      assert.deepEqual(plain(JSON.stringify(group)), group);
      assert.deepEqual(plain(JSON.stringify(group, null, 2)), group);
    }),
  );
});

test("random text never throws and stays in bounds", () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(..."ab:-[]{},&*!?|>'\"#%\t\n \\0") }), (text) => {
      const { faults, lineOf } = readDocument(text);
      for (const { line } of faults)
        assert.ok(line >= 1 && line <= text.split("\n").length, `${line} ${JSON.stringify(text)}`);
      lineOf(["a", 0]);
    }),
    { numRuns: 500 },
  );
});

test("each option knows its line", () => {
  const { lineOf } = readDocument(
    "# first\nlimits:\n  frame: 1\n\nlisteners:\n  - name: a\n    service:\n      x\n  - name: b\n",
  );
  assert.equal(lineOf(["limits"]), 2);
  assert.equal(lineOf(["limits", "frame"]), 3);
  assert.equal(lineOf(["listeners", 0, "service"]), 7);
  assert.equal(lineOf(["listeners", 1, "name"]), 9);
  assert.equal(lineOf(["listeners", 1, "address"]), 9, "missing: the group it is missing from");
  assert.equal(readDocument('{\r\n"a": 1,\r\n"b": 2}').lineOf(["b"]), 3, "JSON with CR LF");
});

test("duplicate names are found with both lines, in groups of any size", () => {
  assert.deepEqual(faultsOf("limits:\n  frame: 1\n  frame: 2\n"), ["3 limits.frame given twice, first on line 2"]);
  assert.deepEqual(faultsOf('{"a": 1, "a": 2}'), ["1 a given twice, first on line 1"]);
});

test("an alias gives the same values again, on the lines of its anchor", () => {
  const text = "a: &shared\n  x: 1\nb: *shared\n";
  assert.deepEqual(plain(text), { a: { x: 1 }, b: { x: 1 } });
  assert.equal(readDocument(text).lineOf(["b", "x"]), 2);
  assert.deepEqual(faultsOf("a: *nowhere\n"), ["1 a no &nowhere stands before this alias"]);
  assert.match(faultsOf("a:\n  <<: {x: 1}\n")[0] ?? "", /^2 a\.<< merge keys are not supported/);
});

test("bombs end at the bounds", () => {
  const levels = Array.from({ length: 12 }, (_, i) => `k${i + 1}: &k${i + 1} [${Array(9).fill(`*k${i}`).join(",")}]`);
  assert.match(faultsOf(`k0: &k0 x\n${levels.join("\n")}\n`).join(), /holds more than 10000 values/);
  assert.match(faultsOf("a: &a [*a]\n").join(), /nested too deeply/);
  assert.match(faultsOf("[".repeat(5_000)).join(), /nested too deeply|must end with a \]/);
  const wide = Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join("\n");
  assert.deepEqual(faultsOf(wide), ["10000  holds more than 10000 values"]);
});

test("__proto__ is a name like any other and changes no prototype", () => {
  for (const text of [
    "__proto__:\n  polluted: 1\n",
    '{"__proto__": {"polluted": 1}}',
    "a: {__proto__: {polluted: 1}}",
  ]) {
    const { data } = readDocument(text);
    assert.equal(Object.getPrototypeOf(data), null);
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  }
  assert.ok(Object.hasOwn(readDocument("__proto__: 1").data as object, "__proto__"));
});

test("what YAML allows and a configuration does not is refused", () => {
  assert.match(faultsOf("a: 1\n---\nb: 2\n").join(), /^2 {2}a second document begins/);
  assert.match(faultsOf("a: !!set {x}\n").join(), /^1 {2}not valid YAML: Unresolved tag/);
  assert.match(faultsOf("? {a: 1}\n: 2\n").join(), /an option's name must be plain text/);
  assert.match(faultsOf("a:\n\tb: 1\n").join(), /^2 {2}not valid YAML: Tabs/);
  assert.match(faultsOf("a: {b: [::]:9000}\n").join(), /put an IPv6 address in quotes/);
});

test("`off` is a word, whatever YAML version the file asks for", () => {
  assert.deepEqual(plain("%YAML 1.1\n---\na: off\nb: yes\n"), { a: "off", b: "yes" });
});
