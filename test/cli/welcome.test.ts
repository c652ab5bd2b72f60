import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { welcome } from "#src/cli/welcome.js";

const ready = {
  version: "1.2.3",
  generation: 1,
  listeners: [
    { name: "frames", address: "0.0.0.0:9001", service: "echo-frame" },
    { name: "lines", address: "[::]:9000", service: "echo-line" },
  ],
  workers: 2,
  control: "/run/x.sock",
  source: "headrace.yaml",
};

test("the block says what listens where and what to try", (t) => {
  process.env.NO_COLOR = "1";
  t.after(() => delete process.env.NO_COLOR);
  const text = welcome(ready);
  assert.match(text, /headrace 1\.2\.3 is ready/);
  assert.match(text, /^ {2}frames {2}0\.0\.0\.0:9001 {2}echo-frame$/m);
  assert.match(text, /^ {2}lines {3}\[::\]:9000 {5}echo-line$/m);
  assert.match(text, /\/dev\/tcp\/::1\/9000/);
  assert.match(text, /status --control \/run\/x\.sock$/m);
});

test("without a service of lines there is nothing to try by hand", () => {
  assert.doesNotMatch(welcome({ ...ready, listeners: ready.listeners.slice(0, 1) }), /try it/);
});

test("the line to try is valid for bash", () => {
  const command = /try it\s+(bash .*)$/m.exec(welcome(ready))?.[1] ?? "";
  execFileSync("bash", ["-n", "-c", command]);
  assert.match(command, /^bash -c '/);
});
