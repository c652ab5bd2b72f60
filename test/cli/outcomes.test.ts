import assert from "node:assert/strict";
import { test } from "node:test";
import { showOutcomes } from "#src/cli/outcomes.js";
import type { Finding } from "#src/primary/diagnosis.js";
import type { Outcome } from "#src/primary/system-findings.js";

const hint = (check: string, repair: string): Finding => ({
  ...{ severity: "hint", check, found: "1", wanted: "2", message: `${check} is too small`, repair },
});

test("a table, then what each finding costs; those with one repair share it; the rest in short", () => {
  const outcomes: Outcome[] = [
    { ...hint("memory", "buy"), severity: "problem" },
    hint("a.b", "tune"),
    hint("c.d", "tune"),
    { severity: "ok", check: "clock", found: "tsc", wanted: "" },
    { severity: "ok", check: "swap", found: "0 MiB", wanted: "" },
    { severity: "unknown", check: "governor", found: "?", wanted: "" },
  ];
  assert.equal(
    showOutcomes(outcomes),
    `check   found  wanted  severity
memory  1      2       problem
a.b     1      2       hint
c.d     1      2       hint

problem: memory is too small
  buy
hint: a.b is too small
hint: c.d is too small
  tune

fine: clock tsc, swap 0 MiB
unknown (not there, or not to be read): governor
`,
  );
});

test("nothing to repair is said", () => {
  const fine: Outcome = { severity: "ok", check: "clock", found: "tsc", wanted: "" };
  assert.equal(showOutcomes([fine]), "nothing to repair\n\nfine: clock tsc\n");
});
