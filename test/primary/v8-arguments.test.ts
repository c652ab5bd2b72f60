import assert from "node:assert/strict";
import { test } from "node:test";
import { v8Arguments } from "#src/primary/v8-arguments.js";

const MiB = 1024 ** 2;

test("sizes are MiB on the command line, flags come last", () => {
  assert.deepEqual(v8Arguments({}), []);
  assert.deepEqual(v8Arguments({ semiSpace: 32 * MiB, oldSpace: 512 * MiB, flags: ["--no-opt"] }), [
    "--max-semi-space-size=32",
    "--max-old-space-size=512",
    "--no-opt",
  ]);
});
